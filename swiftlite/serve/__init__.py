"""OpenAI-compatible server over one AsyncEngine: `server.run` is the command, `app.create_app` the app."""
