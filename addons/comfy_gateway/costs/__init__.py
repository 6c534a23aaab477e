"""``run_gateway.sh costs``: what private pods have cost, read from the gateway's database."""
