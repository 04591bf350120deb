"""What devices of a kind measure, what each is desired and reported to be, and how they get in and are claimed."""

from hse.adapters.postgres.migrate import execute_sql_file

revision = "0019_device_profiles"
down_revision = "0018_notification_templates"


def upgrade() -> None:
    execute_sql_file("0019_device_profiles.sql")
    execute_sql_file("0019_device_attributes.sql")
    execute_sql_file("0019_provisioning_keys.sql")
    execute_sql_file("0019_device_claims.sql")
