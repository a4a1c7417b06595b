package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	goamqp "github.com/Azure/go-amqp"
)

// notGranted says whether a router refused a link for want of an authority. An
// identity that is gone gets the same condition.
func notGranted(err error) bool {
	var ae *goamqp.Error
	return errors.As(err, &ae) && ae.Condition == goamqp.ErrCondUnauthorizedAccess && strings.Contains(ae.Description, "not granted")
}

// grantable adds to an error how the identity gets the rights, which are flags of
// sluice identity update.
func (f *loginFlags) grantable(err error, rights string) error {
	return fmt.Errorf("%w; to grant it, on the machine of the installation: sluice identity update %s --add %s%s", err, quoted(f.user), rights, f.dataFlag())
}

func (f *loginFlags) dataFlag() string {
	if f.data == "" {
		return ""
	}
	return " --data " + quoted(f.data)
}

// mayCommand are the rights of who sends commands to a tenant.
func mayCommand(tenant string, oneWay bool) string {
	rights := "--write " + quoted("command/"+tenant)
	if !oneWay {
		rights += " --read " + quoted("command_response/"+tenant)
	}
	return rights
}

// scopesFor adds to the answer 403 of a management API how the operator gets the
// scope. Of what is set for all tenants the API tells itself.
func (f *managementFlags) scopesFor(err error, args []string) error {
	var e *apiError
	if !errors.As(err, &e) || e.status != http.StatusForbidden || strings.Contains(e.text, "for all tenants") {
		return err
	}
	rights := "--tenant '*'"
	if len(args) > 0 {
		rights = "--tenant " + quoted(args[0])
	}
	switch {
	case strings.HasSuffix(e.text, "takes write"):
	case strings.HasSuffix(e.text, "takes export"):
		rights += " --export --read-only"
	default:
		rights += " --read-only"
	}
	return f.grantable(err, "--operator "+rights)
}

// existsTime is how long it may take to learn that a tenant does not exist: it is
// asked beside what the user wants.
const existsTime = 2 * time.Second

// missing is an error when the tenant, or a device if one is named, does not
// exist. It is known only where the operator of this machine's installation is
// found and the router is its; nil says nothing.
func (f *applicationFlags) missing(ctx context.Context, tenant, device string) error {
	operator, _ := findOperator(f.data)
	if operator["SLUICE_URL"] == "" || operator["SLUICE_ROUTER_URL"] != f.url {
		return nil
	}
	m := managementFlags{loginFlags{data: f.data, url: operator["SLUICE_URL"], user: operator["SLUICE_USER"],
		password: operator["SLUICE_PASSWORD"], ca: operator["SLUICE_CA"]}}
	c, err := m.open()
	if err != nil {
		return nil
	}
	defer c.close()
	ctx, cancel := context.WithTimeout(ctx, existsTime)
	defer cancel()
	if missingTenant(ctx, c, tenant) != nil {
		return fmt.Errorf("the tenant %s does not exist: sluice tenant list shows those that do%s", tenant, f.dataHint())
	}
	if device == "" {
		return nil
	}
	_, err = c.call(ctx, apiRequest{method: http.MethodGet, path: escaped("/v1/devices", []string{tenant, device})})
	if hasStatus(err, http.StatusNotFound) {
		return fmt.Errorf("%s has no device %s: sluice device list %s shows those that it has%s", tenant, device, quoted(tenant), f.dataHint())
	}
	return nil
}

func (f *loginFlags) dataHint() string {
	if f.data == "" {
		return ""
	}
	return " (with" + f.dataFlag() + ")"
}
