"""The gateway with a simulated ComfyUI and a simulated RunPod: `./run_gateway.sh demo`.

Three programs as children of this one: the gateway as `serve` starts it, and the two simulators. Nothing of the
user's settings reaches them, and nothing leaves this machine.
"""
