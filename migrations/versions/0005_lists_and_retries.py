"""Lists of files and renders, and retries

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("renders", schema=None) as batch_op:
        batch_op.add_column(sa.Column("retry_of", sa.String(length=32), nullable=True))
    op.create_index("ix_renders_user_id_created_at", "renders", ["user_id", "created_at", "id"])
    op.create_index("ix_files_user_id_created_at", "files", ["user_id", "created_at", "id"])


def downgrade() -> None:
    op.drop_index("ix_files_user_id_created_at", "files")
    op.drop_index("ix_renders_user_id_created_at", "renders")
    with op.batch_alter_table("renders", schema=None) as batch_op:
        batch_op.drop_column("retry_of")
