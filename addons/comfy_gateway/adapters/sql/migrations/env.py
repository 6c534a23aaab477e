"""Run by Alembic for every command, on the connection that ``migrate`` has opened."""

from alembic import context

from comfy_gateway.adapters.sql.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
