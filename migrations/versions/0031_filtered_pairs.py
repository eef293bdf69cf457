"""What is measured of a segment's filter, and how fast workers are with options

Revision ID: 0031
Revises: 0030
"""

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("segments", schema=None) as batch_op:
        batch_op.add_column(sa.Column("filtered_pairs", sa.JSON(none_as_null=True), nullable=True))
    op.create_table(
        "measured_option_speeds",
        sa.Column("worker_device", sa.String(length=100), nullable=False),
        sa.Column("option", sa.String(length=60), nullable=False),
        sa.Column("pixels_per_second", sa.Double(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("measured_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("worker_device", "option", name=op.f("pk_measured_option_speeds")),
    )


def downgrade() -> None:
    op.drop_table("measured_option_speeds")
    with op.batch_alter_table("segments", schema=None) as batch_op:
        batch_op.drop_column("filtered_pairs")
