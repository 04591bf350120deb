"""The words in which organisations have guests told things, and notifications that are sent again."""

from hse.adapters.postgres.migrate import execute_sql_file

revision = "0018_notification_templates"
down_revision = "0017_booking_notifications"


def upgrade() -> None:
    execute_sql_file("0018_notification_templates.sql")
