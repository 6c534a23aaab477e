"""mitmproxy addons, one job each. Only this package and ``wiring`` know mitmproxy."""
