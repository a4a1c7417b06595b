package lambda

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/sluice-iot/sluice/functions/host"
	"github.com/sluice-iot/sluice/internal/iot"
)

// IAM is the identity that Lambda or API Gateway verified before the invocation.
type IAM struct {
	AccountID string
	ARN       string // arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION, or of a user
}

type iamKey struct{}

// IAMFrom returns the identity of an HTTP request, where IAM authorised it.
func IAMFrom(ctx context.Context) (IAM, bool) {
	id, ok := ctx.Value(iamKey{}).(IAM)
	return id, ok
}

// Roles says which IAM roles are components: kind by role ARN.
type Roles map[string]host.Kind

// ParseRoles reads a list such as
// "adapter=arn:aws:iam::123456789012:role/sluice-adapter,router=...".
func ParseRoles(text string) (Roles, error) {
	roles := Roles{}
	for item := range strings.SplitSeq(text, ",") {
		kind, arn, ok := strings.Cut(strings.TrimSpace(item), "=")
		if !ok || !slices.Contains(host.Kinds, host.Kind(kind)) || roleName(arn) == "" {
			return nil, fmt.Errorf("role %q: expected KIND=ARN, such as adapter=arn:aws:iam::123456789012:role/NAME", item)
		}
		roles[arn] = host.Kind(kind)
	}
	return roles, nil
}

// ParseKinds reads a list of kinds of components such as "adapter,router".
func ParseKinds(text string) (kinds []host.Kind, err error) {
	for name := range strings.SplitSeq(text, ",") {
		kind := host.Kind(strings.TrimSpace(name))
		if !slices.Contains(host.Kinds, kind) {
			return nil, fmt.Errorf("%q is no kind of component; expected some of %v", kind, host.Kinds)
		}
		kinds = append(kinds, kind)
	}
	return kinds, nil
}

// Caller identifies HTTP callers by the role that they assumed.
func (roles Roles) Caller() host.CallerFunc {
	byName := map[string]host.Kind{}
	for arn, kind := range roles {
		byName[roleName(arn)] = kind
	}
	return func(r *http.Request) (host.Caller, error) {
		id, ok := IAMFrom(r.Context())
		if !ok {
			return host.Caller{}, iot.Errorf(iot.ErrUnauthenticated, "IAM did not authorise the request")
		}
		name, session, _ := strings.Cut(strings.TrimPrefix(id.ARN, partition(id.ARN)), "/")
		role, session, _ := strings.Cut(session, "/")
		account, kind, _ := strings.Cut(name, ":")
		if kind != "assumed-role" || account == "" {
			return host.Caller{}, iot.Errorf(iot.ErrUnauthenticated, "the IAM identity is no assumed role")
		}
		k, ok := byName[account+"/"+role]
		if !ok {
			return host.Caller{}, iot.Errorf(iot.ErrUnauthenticated, "the IAM role is that of no component")
		}
		return host.Caller{Kind: k, Instance: session}, nil
	}
}

// partition is the part of an ARN up to the account: arn:aws:sts::.
func partition(arn string) string {
	parts := strings.SplitN(arn, ":", 5)
	if len(parts) < 5 || parts[0] != "arn" {
		return ""
	}
	return arn[:len(arn)-len(parts[4])]
}

// roleName is ACCOUNT/NAME of a role's ARN, whose path the ARN of who assumes it
// does not have; "" for another ARN.
func roleName(arn string) string {
	account, resource, _ := strings.Cut(strings.TrimPrefix(arn, partition(arn)), ":")
	path, ok := strings.CutPrefix(resource, "role/")
	name := path[strings.LastIndexByte(path, '/')+1:]
	if !ok || account == "" || name == "" || partition(arn) == "" {
		return ""
	}
	return account + "/" + name
}
