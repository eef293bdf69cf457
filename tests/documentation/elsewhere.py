"""Which tests run or judge the fenced blocks of the pages that test_samples.py does not run page by page."""

from tests.documentation.samples import Sample

_HERE = "tests/documentation/test_samples.py"
_BLOCKS = "tests/documentation/test_blocks.py"
_IMAGES = "tests/images/test_compose_file.py"
_CLONE = "tests/installation/test_clone.py"
_PACKAGES = "tests/installation/test_packages.py"
_SITE = "scripts/site"
_METRICS = "tests/integration/api/test_observability_metrics.py"

# By page, language and how the block begins ("" for all of that language): a test, or the script that runs it.
TESTS = {
    ("README.md", "sh", "scripts/demo"): f"{_CLONE}::test_the_demo",
    ("README.md", "sh", "scripts/test"): ".ci/run",
    ("CONTRIBUTING.md", "sh", "scripts/setup --test"): f"{_CLONE}::test_the_environment_for_tests",
    ("clients/pytest/README.md", "sh", ""): f"{_PACKAGES}::test_an_installation",
    ("clients/pytest/README.md", "python", ""): f"{_HERE}::test_the_fixture_of_its_page",
    ("clients/python/README.md", "sh", ""): f"{_PACKAGES}::test_an_installation",
    ("clients/typescript/README.md", "sh", ""): "tests/clients/test_typescript.py::project",
    ("clients/typescript/README.md", "js", ""): "tests/clients/test_typescript.py::test_in_node",
    (
        "clients/typescript/README.md",
        "ts",
        "",
    ): "tests/clients/test_typescript.py::test_its_types_in_strict_programs",
    ("docs/api.md", "js", ""): "tests/clients/test_typescript.py::test_in_node",
    ("docs/api.md", "json", ""): f"{_BLOCKS}::test_answers_in_json_are_as_the_description_has_them",
    ("docs/api.md", "sh", "pip install clients/python"): f"{_PACKAGES}::test_an_installation",
    ("docs/api.md", "sh", "pip install openapi-python-client"): f"{_PACKAGES}::test_a_generated_client",
    ("docs/api.md", "python", "from regen_api"): f"{_PACKAGES}::test_a_generated_client",
    ("docs/api.md", "sh", "pip install schemathesis"): f"{_PACKAGES}::test_schemathesis",
    ("docs/cli.md", "sh", "regen login"): f"{_HERE}::test_the_command_line",
    (
        "docs/cluster.md",
        "promql",
        "",
    ): f"{_METRICS}::test_the_documented_queries_scale_on_the_work_that_remains",
    (
        "docs/cluster.md",
        "yaml",
        "",
    ): "tests/deploy/test_kubernetes_samples.py::test_the_scaled_object_of_the_page_on_clusters",
    ("docs/containers.md", "sh", "scripts/secrets"): "tests/images/conftest.py::first_start",
    ("docs/containers.md", "sh", "git pull"): f"{_IMAGES}::test_the_samples_of_an_update",
    ("docs/containers.md", "sh", "scripts/images build"): "tests/images/conftest.py::script_of_the_page",
    ("docs/decisions/README.md", "{toctree}", ""): _SITE,
    ("docs/index.md", "{toctree}", ""): _SITE,
    ("docs/engines.md", "sh", "regen weights"): f"{_HERE}::test_weights_of_ones_own",
    ("docs/events.md", "python", ""): f"{_HERE}::test_the_stream_is_followed",
    ("docs/events.md", "text", ""): "tests/integration/api/test_events.py::test_the_stream_of_the_page",
    ("docs/events.md", "json", ""): f"{_BLOCKS}::test_answers_in_json_are_as_the_description_has_them",
    ("docs/fidelity.md", "sh", ""): f"{_CLONE}::test_the_comparison_of_files",
    ("docs/kubernetes.md", "sh", ""): "tests/deploy/test_kubernetes_samples.py::test_the_first_installation",
    ("docs/kubernetes.md", "yaml", ""): "tests/deploy/test_kubernetes_samples.py::test_values",
    (
        "docs/limits.md",
        "text",
        "",
    ): "tests/integration/api/test_limits.py::test_requests_are_counted_for_users_and_keys_and_every_answer_says_so",
    ("docs/limits.md", "json", ""): f"{_BLOCKS}::test_answers_in_json_are_as_the_description_has_them",
    ("docs/mock.md", "sh", "pip install pytest-regen"): f"{_PACKAGES}::test_an_installation",
    ("docs/mock.md", "sh", "docker run"): f"{_IMAGES}::test_the_mock_in_a_container",
    ("docs/mock.md", "js", ""): f"{_HERE}::test_the_mock",
    ("docs/mock.md", "python", ""): "tests/integration/mock/test_recipes.py::test_every_recipe_for_pytest",
    ("docs/mock.md", "yaml", ""): "tests/containers/test_compose.py::test_the_services_of_the_mocks_page",
    (
        "docs/observability.md",
        "json",
        '{"timestamp"',
    ): "tests/e2e/test_json_logs.py::test_every_line_is_json_and_a_render_can_be_followed",
    (
        "docs/observability.md",
        "json",
        '{"errors"',
    ): f"{_BLOCKS}::test_answers_in_json_are_as_the_description_has_them",
    ("docs/observability.md", "sh", "pip install 'regen-server[tracing]'"): f"{_HERE}::test_traces",
    ("docs/operating.md", "ini", ""): "tests/deploy/test_systemd.py::test_the_environment_file_of_the_page",
    ("docs/operating.md", "sh", "regen db upgrade"): f"{_HERE}::test_quick_start_of_a_cluster",
    ("docs/operating.md", "sh", "regen backup"): f"{_HERE}::test_backup_and_restore",
    ("docs/previews.md", "json", ""): f"{_BLOCKS}::test_answers_in_json_are_as_the_description_has_them",
    ("docs/quality.md", "json", ""): f"{_BLOCKS}::test_answers_in_json_are_as_the_description_has_them",
    ("docs/releasing.md", "sh", ".venv/bin/python scripts/lock.py"): f"{_CLONE}::test_the_lock",
    (
        "docs/releasing.md",
        "sh",
        "python scripts/pin_images.py",
    ): "tests/unit/release/test_pin_images.py::test_the_sample_of_its_page",
    ("docs/uploads.md", "python", ""): f"{_HERE}::test_the_upload_in_parts",
    ("docs/webhooks.md", "python", ""): f"{_HERE}::test_the_receiver_of_webhooks",
    (
        "docs/webhooks.md",
        "text",
        "",
    ): "tests/integration/webhooks/test_dispatcher.py::test_the_way_of_a_render",
}


def claims_on(sample: Sample) -> list[str]:
    """Those that the table has for a block."""
    return [
        test
        for (page, language, begin), test in TESTS.items()
        if (page, language) == (sample.page, sample.language) and sample.text.startswith(begin)
    ]
