#!/usr/bin/env bash
# Becomes nginx with the configuration that start.sh has written. Environment from start.sh.
set -euo pipefail
unset GATEWAY_POD_TOKEN AUTH_TOKEN RUNPOD_API_KEY
exec "$NGINX_COMMAND" -e stderr -p "$FRONT_DOOR_DIR/" -c "$FRONT_DOOR_DIR/nginx.conf"
