"""What an administrator has against a Job, by an admission policy."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.api.client import Resource
from tests.api.harness import Team, eventually
from tests.support.kubectl import KubectlError


@contextmanager
def forbidden(team: Team, operation: str, expression: str, message: str, *probe: str) -> Iterator[None]:
    """A policy for the Jobs of a team's namespace, in force for the block; it is the cluster's own object.

    Args:
        probe: what kubectl is refused by then, of which nothing is carried out.
    """

    def is_forbidden() -> bool:
        try:
            team.kubectl(*probe, "--dry-run=server")
        except KubectlError as error:
            return message in str(error)
        return False

    made = _policy(team.namespace, operation, expression, message)
    try:
        team.kubectl.apply(*made)
        eventually(is_forbidden, "the policy")
        yield
    finally:
        names = (f"{each['kind']}/{each['metadata']['name']}" for each in reversed(made))
        team.kubectl("delete", *names, "--ignore-not-found")


def _policy(namespace: str, operation: str, expression: str, message: str) -> list[Resource]:
    """A policy and its binding, for the Jobs of a namespace.

    Args:
        operation: CREATE or DELETE.
        expression: what must be true, in CEL.
        message: what is said where it is not.
    """
    name, match = f"{operation.lower()}.{namespace}", {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    rule = {"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": [operation], "resources": ["jobs"]}
    constraints = {"namespaceSelector": match, "resourceRules": [rule]}
    validation = {"expression": expression, "message": message, "reason": "Forbidden"}
    spec = {"matchConstraints": constraints, "validations": [validation]}
    binding = {"policyName": name, "validationActions": ["Deny"]}
    group = "admissionregistration.k8s.io/v1"
    return [
        {"apiVersion": group, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name}, "spec": spec},
        {"apiVersion": group, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name}, "spec": binding},
    ]
