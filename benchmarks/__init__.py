"""What the gateway costs beside what people would put there instead. ``run_gateway.sh bench`` runs it.

Every figure stands beside its peers from the same run: on shared cores a figure alone says nothing.
"""
