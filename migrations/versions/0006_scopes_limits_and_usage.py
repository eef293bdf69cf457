"""Scopes and limits of keys and users, and what they used

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("api_keys", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("scopes", sa.JSON(), server_default=sa.text('\'["read", "write"]\''), nullable=False)
        )
        batch_op.add_column(sa.Column("limits", sa.JSON(), nullable=True))
        batch_op.add_column(sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True))
    op.execute(sa.text('UPDATE api_keys SET scopes = \'["read", "write", "admin"]\' WHERE is_admin'))
    with op.batch_alter_table("api_keys", schema=None) as batch_op:
        batch_op.drop_column("is_admin")
    with op.batch_alter_table("users", schema=None) as batch_op:
        batch_op.add_column(sa.Column("max_running_renders", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("limits", sa.JSON(), nullable=True))
    with op.batch_alter_table("renders", schema=None) as batch_op:
        batch_op.add_column(sa.Column("api_key_id", sa.String(length=32), nullable=True))
        batch_op.add_column(sa.Column("output_bytes", sa.BigInteger(), nullable=True))
    op.create_table(
        "daily_usage",
        sa.Column("user_id", sa.String(length=32), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("engine", sa.String(length=40), nullable=False),
        sa.Column("api_key_id", sa.String(length=32), nullable=False),
        sa.Column("renders", sa.BigInteger(), nullable=False),
        sa.Column("gigapixels", sa.Double(), nullable=False),
        sa.Column("cost", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_daily_usage_user_id_users")),
        sa.PrimaryKeyConstraint("user_id", "day", "engine", "api_key_id", name=op.f("pk_daily_usage")),
    )


def downgrade() -> None:
    op.drop_table("daily_usage")
    with op.batch_alter_table("renders", schema=None) as batch_op:
        batch_op.drop_column("output_bytes")
        batch_op.drop_column("api_key_id")
    with op.batch_alter_table("users", schema=None) as batch_op:
        batch_op.drop_column("limits")
        batch_op.drop_column("max_running_renders")
    with op.batch_alter_table("api_keys", schema=None) as batch_op:
        batch_op.add_column(sa.Column("is_admin", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.execute(sa.text("UPDATE api_keys SET is_admin = true WHERE CAST(scopes AS TEXT) LIKE '%admin%'"))
    with op.batch_alter_table("api_keys", schema=None) as batch_op:
        batch_op.drop_column("expires_at")
        batch_op.drop_column("last_used_at")
        batch_op.drop_column("limits")
        batch_op.drop_column("scopes")
