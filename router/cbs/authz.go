package cbs

import (
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/auth"
)

// CapabilityAddressAuthz asks, in the peer's open, for the identity's authorities.
const CapabilityAddressAuthz amqp.Symbol = "ADDRESS-AUTHZ"

// openRoom is what an open takes beside its properties, in bytes.
const openRoom = 1024

// Answer returns what makes our open to a peer that proved to be id, and asks for
// [CapabilityAddressAuthz], carry its name and its authorities: the property
// authenticated-identity, a map with its name as sub (peers of a version before 1.4
// get the name itself), and address-authz, a map of addresses to arrays of recv and
// send. Without the capability the open stays as it is, and also where the peer
// takes no frame of that size: it is then offered nothing.
func Answer(id *auth.Identity) func(remote, own *amqp.Open) {
	return func(remote, own *amqp.Open) {
		if !slices.Contains(remote.DesiredCapabilities, CapabilityAddressAuthz) {
			return
		}
		var name any = amqp.Map{{Key: "sub", Value: id.Name}}
		if old(version(remote)) {
			name = id.Name
		}
		properties, _, _ := amqp.DecodeValue(own.Properties)
		m, _ := properties.(amqp.Map)
		m = append(slices.Clip(m), amqp.Pair{Key: amqp.Symbol("authenticated-identity"), Value: name},
			amqp.Pair{Key: amqp.Symbol("address-authz"), Value: permissions(id.Authorities())})
		b, err := amqp.AppendMap(nil, m)
		if err != nil || len(b)+openRoom > int(min(remote.MaxFrameSize, 1<<30)) {
			return
		}
		own.Properties = b
		own.OfferedCapabilities = append(slices.Clip(own.OfferedCapabilities), CapabilityAddressAuthz)
	}
}

// permissions are the addresses of list with what may be done there.
func permissions(list []auth.Authority) amqp.Map {
	may := map[string]auth.Activity{}
	var order []string
	for _, a := range list {
		if a.Operation != "" || a.May&(auth.Read|auth.Write) == 0 {
			continue
		}
		if may[a.Address] == 0 {
			order = append(order, a.Address)
		}
		may[a.Address] |= a.May
	}
	out := amqp.Map{}
	for _, address := range order {
		var words []any
		if may[address]&auth.Read != 0 {
			words = append(words, "recv")
		}
		if may[address]&auth.Write != 0 {
			words = append(words, "send")
		}
		out = append(out, amqp.Pair{Key: address, Value: amqp.Array{Code: codeString, Values: words}})
	}
	return out
}

// codeString is the constructor of a string of up to 4 GiB (Part 1, section 1.6.20).
const codeString = 0xb1

// version is the property of that name in the peer's open.
func version(remote *amqp.Open) string {
	properties, _, _ := amqp.DecodeValue(remote.Properties)
	m, _ := properties.(amqp.Map)
	v, _ := m.Get("version").(string)
	return v
}

// old reports whether a version is below 1.4. One that is not told, or is none, is not.
func old(version string) bool {
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	m, err := strconv.Atoi(major)
	n, err2 := strconv.Atoi(minor)
	return err == nil && err2 == nil && (m < 1 || m == 1 && n < 4)
}
