package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/config"
)

// functionsVariable names the environment variable that --functions defaults to.
const functionsVariable = "SLUICE_SERVE"

// managementPart is the name of the part that is no function.
const managementPart = "management"

// eventsPart is the event store.
const eventsPart = "events"

// notificationPart is the function that needs no store.
const notificationPart = "notification"

// partTypes are the types of calls that each part answers. assertion.sign is in
// none: whoever needs it links it.
var partTypes = []struct {
	name  string
	types []string
}{
	{"tenant", []string{events.TypeTenantGet}},
	{"credentials", []string{events.TypeCredentialsGet}},
	{"registration", []string{events.TypeRegistrationAssert, events.TypeRegistryChanges}},
	{"assertion", []string{events.TypeAssertionKeys, events.TypeAssertionRotate}},
	{"admission", []string{events.TypeAdmit}},
	{notificationPart, []string{events.TypeNotificationDerive}},
	{eventsPart, eventTypes},
	{managementPart, nil},
}

// eventTypes are those about stored events.
var eventTypes = []string{
	events.TypeEventAppend, events.TypeEventClaim, events.TypeEventRead, events.TypeEventSettle, events.TypeEventRelease,
	events.TypeEventExpire, events.TypeEventStats, events.TypeEventBrowse, events.TypeEventRequeue, events.TypeEventPurge,
}

func allParts() string {
	var names []string
	for _, p := range partTypes {
		names = append(names, p.name)
	}
	return strings.Join(names, ",")
}

// parts is what one process serves.
type parts struct {
	types      []string
	management bool
	identity   bool // some function of the registry, or management
	events     bool
}

// parseParts reads a list of names; an empty one is all of them.
func parseParts(list string) (p parts, err error) {
	if strings.TrimSpace(list) == "" {
		list = allParts()
	}
	for name := range strings.SplitSeq(list, ",") {
		name = strings.TrimSpace(name)
		i := slices.IndexFunc(partTypes, func(t struct {
			name  string
			types []string
		}) bool {
			return t.name == name
		})
		if i < 0 {
			return p, fmt.Errorf("--functions %q: expected some of %s", name, allParts())
		}
		p.types = append(p.types, partTypes[i].types...)
		p.management = p.management || name == managementPart
		p.events = p.events || name == eventsPart
		p.identity = p.identity || name != eventsPart && name != notificationPart
	}
	return p, nil
}

// of are those of the functions that the process serves.
func (p parts) of(all []events.Function) []events.Function {
	return slices.DeleteFunc(slices.Clone(all), func(f events.Function) bool { return !slices.Contains(p.types, f.Type()) })
}

// roles are the listeners that the process opens where no platform names a port.
func (p parts) roles() []string {
	roles := []string{config.RoleHealth}
	if len(p.types) > 0 {
		roles = append(roles, config.RoleFunction)
	}
	if p.management {
		roles = append(roles, config.RoleManagement)
	}
	return roles
}
