"""Makes known to every test what these have; each says what that is."""

pytest_plugins = ("book", "certificates", "ends", "servers", "serving", "spread", "stores")
