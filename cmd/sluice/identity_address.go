package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/config"
	"github.com/sluice-iot/sluice/internal/config/strictyaml"
	"github.com/sluice-iot/sluice/router/cbs"
	"github.com/sluice-iot/sluice/router/manage"
	"github.com/sluice-iot/sluice/router/service"
)

// maxAddress is how many bytes an address of a router may have.
const maxAddress = 1024

const (
	knownAddresses = "telemetry/TENANT, event/TENANT, command/TENANT, command_response/TENANT, notification/NAME, command_internal/NAME, " +
		"tenant, registration/TENANT, credentials/TENANT, cmd_router/TENANT, $management, or one of `addresses` of the configuration; * stands for one segment"
	knownOperations = "tenant/TENANT:get, registration/TENANT:assert, credentials/TENANT:get, cmd_router/TENANT:*, $management:DELETE"
)

// serviceEndpoints are the first segments of what has operations.
var serviceEndpoints = []string{service.Tenant, service.Registration, service.Credentials, service.Commands, manage.Address}

// endpoints are the first segments of the addresses that a router with this
// configuration can have.
func endpoints(configured []config.Address) []string {
	out := append(slices.Clone(serviceEndpoints), auth.DeviceDirectory, cbs.Address)
	for _, a := range slices.Concat(config.HonoAddresses(), configured) {
		first, _, _ := strings.Cut(a.Pattern, "/")
		out = append(out, first)
	}
	return out
}

// check refuses rights that nothing could ever be asked for.
func (n *newIdentity) check(at *config.Loaded) error {
	for _, t := range n.tenants {
		if err := checkName("tenant", t); err != nil {
			return fmt.Errorf("--tenant: %w", err)
		}
		if t != auth.AllTenants && strings.Contains(t, "*") {
			return fmt.Errorf("--tenant %q: * stands for all tenants, not for a part of a name", t)
		}
	}
	known := endpoints(at.Addresses)
	for _, given := range []struct {
		flag      string
		addresses []string
	}{{"--read", n.read}, {"--write", n.write}} {
		for _, a := range given.addresses {
			if err := checkAddress(a, known); err != nil {
				return fmt.Errorf("%s %q: %w; expected %s", given.flag, a, err, knownAddresses)
			}
		}
	}
	for _, o := range n.execute {
		i := strings.LastIndexByte(o, ':')
		if i <= 0 || i == len(o)-1 {
			return fmt.Errorf("--execute %q: expected ADDRESS:OPERATION, such as %s", o, knownOperations)
		}
		if err := checkAddress(o[:i], serviceEndpoints); err != nil {
			return fmt.Errorf("--execute %q: %w; expected such as %s", o, err, knownOperations)
		}
	}
	return nil
}

// checkAddress refuses an address, which may have wildcards, that no router takes.
func checkAddress(address string, known []string) error {
	first, rest, _ := strings.Cut(address, "/")
	switch {
	case address == "":
		return errors.New("empty")
	case len(address) > maxAddress:
		return fmt.Errorf("longer than %d bytes", maxAddress)
	case !utf8.ValidString(address) || strings.ContainsFunc(address, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }):
		return errors.New("an address has neither spaces nor control characters")
	case first == manage.Address && rest != "":
		return fmt.Errorf("the router is managed at %s itself", manage.Address)
	case strings.Contains(first, "*"):
		return nil // a part of a segment is refused when it is compiled
	case slices.Contains(known, "*") || slices.Contains(known, first):
		return nil
	case first == "":
		return errors.New("an address begins with no /")
	}
	nearest := strictyaml.Nearest(first, known)
	if strictyaml.Distance(first, nearest) > min(3, len(first)/2) {
		return fmt.Errorf("no address begins with %s", first)
	}
	return fmt.Errorf("no address begins with %s; nearest: %s", first, nearest)
}
