package auth

import (
	"fmt"
	"strings"
)

// Activity is a set of things that may be done at an address.
type Activity uint8

// Read is to receive from an address, Write to send to it, Execute to have an
// operation of a service done. Export is for operators only: to read what devices
// prove themselves with.
const (
	Read Activity = 1 << iota
	Write
	Execute
	Export
)

// ParseActivity reads the words read, write, execute and export in either case.
func ParseActivity(word string) (Activity, error) {
	switch strings.ToLower(word) {
	case "read":
		return Read, nil
	case "write":
		return Write, nil
	case "execute":
		return Execute, nil
	case "export":
		return Export, nil
	}
	return 0, fmt.Errorf("unknown activity %q; expected read, write, execute or export", word)
}

func (a Activity) String() string {
	var words []string
	for _, w := range []struct {
		a    Activity
		name string
	}{{Read, "read"}, {Write, "write"}, {Execute, "execute"}, {Export, "export"}} {
		if a&w.a != 0 {
			words = append(words, w.name)
		}
	}
	return strings.Join(words, "+")
}

// Authority allows activities at an address, or an operation of a service. In an
// address one * stands for one whole segment, and what holds for ep/T also holds for
// everything below it.
type Authority struct {
	Address   string // such as telemetry/DEMO or telemetry/*; "" if Operation is set
	Operation string // address:operation, such as credentials/DEMO:get or tenant/*:*
	May       Activity
}

// Authorities is a set of authorities, compiled for look-up. It is immutable and
// safe for concurrent use.
type Authorities struct {
	root node
	list []Authority
}

// node is a segment of the addresses that were granted something.
type node struct {
	next map[string]*node
	star *node // the segment *
	may  Activity
	ops  map[string]struct{} // operations allowed here; "*" is all
}

// Compile checks authorities and prepares them for look-up.
func Compile(list []Authority) (*Authorities, error) {
	a := &Authorities{list: list}
	for _, g := range list {
		if err := a.add(g); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// List returns what was compiled; the caller must not change it.
func (a *Authorities) List() []Authority { return a.list }

func (a *Authorities) add(g Authority) error {
	address, operation := g.Address, ""
	if g.Operation != "" {
		i := strings.LastIndexByte(g.Operation, ':')
		if g.Address != "" || i <= 0 || i == len(g.Operation)-1 {
			return fmt.Errorf("operation %q; expected address:operation, such as credentials/DEMO:get", g.Operation)
		}
		address, operation = g.Operation[:i], g.Operation[i+1:]
	}
	if err := checkPattern(address); err != nil {
		return err
	}
	n := &a.root
	for segment := range strings.SplitSeq(address, "/") {
		n = n.child(segment)
	}
	if operation == "" {
		n.may |= g.May
		return nil
	}
	if n.ops == nil {
		n.ops = map[string]struct{}{}
	}
	n.ops[operation] = struct{}{}
	return nil
}

func checkPattern(address string) error {
	for segment := range strings.SplitSeq(address, "/") {
		if segment == "" {
			return fmt.Errorf("address %q has an empty segment", address)
		}
		if segment != "*" && strings.Contains(segment, "*") {
			return fmt.Errorf("address %q: * stands for a whole segment only", address)
		}
	}
	return nil
}

func (n *node) child(segment string) *node {
	if segment == "*" {
		if n.star == nil {
			n.star = &node{}
		}
		return n.star
	}
	if n.next == nil {
		n.next = map[string]*node{}
	}
	if n.next[segment] == nil {
		n.next[segment] = &node{}
	}
	return n.next[segment]
}

// May reports whether any authority allows what at the address: one for the
// address itself, for an address above it, or with * for one of its segments.
func (a *Authorities) May(address string, what Activity) bool {
	if what == 0 || address == "" {
		return false
	}
	return a.root.find(address, func(n *node) bool { return n.may&what == what })
}

// MayOperate reports whether the operation may be executed at the address, such as
// get at credentials/DEMO.
func (a *Authorities) MayOperate(address, operation string) bool {
	if address == "" || operation == "" {
		return false
	}
	return a.root.find(address, func(n *node) bool {
		if _, ok := n.ops["*"]; ok {
			return true
		}
		_, ok := n.ops[operation]
		return ok
	})
}

// find walks down the address's segments, by name and by *, until ok says so.
func (n *node) find(address string, ok func(*node) bool) bool {
	segment, rest, more := strings.Cut(address, "/")
	if next := n.next[segment]; next != nil && next.holds(rest, more, ok) {
		return true
	}
	return n.star != nil && segment != "" && n.star.holds(rest, more, ok)
}

func (n *node) holds(rest string, more bool, ok func(*node) bool) bool {
	return ok(n) || more && n.find(rest, ok)
}
