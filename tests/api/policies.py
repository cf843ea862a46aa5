"""What an administrator has against a Job, by an admission policy."""

from tests.api.client import Resource


def policy(namespace: str, operation: str, expression: str, message: str) -> list[Resource]:
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
