"""The engines for renders."""

from app.engines import schemas
from app.http.dependencies import ResourcesDependency, UserDependency
from app.http.router import BodyRouter

router = BodyRouter(tags=["engines"])


@router.get("/v1/engines")
def list_engines(_user: UserDependency, resources: ResourcesDependency) -> schemas.EnginesBody:
    """Every engine, with its scale and cost: those that are built in, and those that running workers add."""
    engines = resources.engines.all().values()
    return schemas.EnginesBody(engines=[schemas.Engine.model_validate(engine) for engine in engines])
