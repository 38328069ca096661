"""The router: EMA state, ranking rules, feedback, routes. Pure."""
