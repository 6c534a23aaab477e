"""Answers of several servers, told as if there were one."""
