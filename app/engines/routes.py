"""The engines for renders."""

from fastapi import APIRouter

from app.engines import schemas
from app.http.dependencies import UserDependency
from models.catalog import ENGINES

router = APIRouter(tags=["engines"])


@router.get("/v1/engines")
def list_engines(_user: UserDependency) -> schemas.EnginesBody:
    """Every engine, with its scale and cost."""
    return schemas.EnginesBody(engines=[schemas.Engine.model_validate(engine) for engine in ENGINES.values()])
