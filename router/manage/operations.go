package manage

import (
	"slices"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/router/forward"
)

// maxReply ends a QUERY's reply early, in bytes.
const maxReply = 512 * 1024

// entityType is one kind of entity.
type entityType struct {
	name       string
	attributes []string // behind the common ones; see commonAttributes
	operations []string
	// keys lists the identities of what there is, in order.
	keys func(v *view) []string
	// read returns the values of the attributes, or false when it is gone.
	read func(v *view, key string) ([]any, bool)
	// remove ends an entity once v.after is called; nil = cannot be.
	remove func(v *view, key string) status
}

// commonAttributes begin every entity.
var commonAttributes = []string{"type", "name", "identity"}

func (t *entityType) names() []string { return slices.Concat(commonAttributes, t.attributes) }

// entity returns the values of one entity in the order of names.
func (t *entityType) entity(v *view, key string) ([]any, bool) {
	values, ok := t.read(v, key)
	if !ok {
		return nil, false
	}
	return append([]any{t.name, key, key}, values...), true
}

// view is what one request sees. Connections are listed once.
type view struct {
	node  *Node
	asker *peer.Conn
	order []forward.ConnInfo
	conns map[uint64]forward.ConnInfo
	users map[string]*connected
	// dynamic has the names of dynamic addresses by what is shown of them.
	dynamic map[string]string
	after   func() // once the reply is on its way
}

func (v *view) connections() []forward.ConnInfo {
	if v.conns == nil {
		v.order = v.node.o.Router.Connections()
		v.conns = make(map[uint64]forward.ConnInfo, len(v.order))
		for _, c := range v.order {
			v.conns[c.ID] = c
		}
	}
	return v.order
}

// connection finds an open connection.
func (v *view) connection(id uint64) (forward.ConnInfo, bool) {
	v.connections()
	c, ok := v.conns[id]
	return c, ok
}

func (n *Node) perform(v *view, req *request) answer {
	types := n.types
	if req.kind != "" {
		t := n.typeOf(req.kind)
		if t == nil {
			return answer{status: failed(404, "no type %.64q", req.kind)}
		}
		types = []*entityType{t}
	}
	switch req.operation {
	case Query:
		return query(v, req, types)
	case GetTypes:
		return each(types, func(*entityType) any { return amqp.List{} }) // none has a base type
	case GetAttributes:
		return each(types, func(t *entityType) any { return listOf(t.names()) })
	case GetOperations:
		return each(types, func(t *entityType) any { return listOf(t.operations) })
	case GetNodes:
		return answer{body: amqp.List{}} // this router knows of no other
	case Read, Delete:
		if req.kind == "" || req.id == "" {
			return answer{status: failed(400, "%s needs type, and identity or name", req.operation)}
		}
		if req.operation == Read {
			return read(v, req, types[0])
		}
		return remove(v, req, types[0])
	}
	return answer{status: failed(501, "operation %.64q is not implemented", req.operation)}
}

func (n *Node) typeOf(name string) *entityType {
	for _, t := range n.types {
		if t.name == name {
			return t
		}
	}
	return nil
}

func each(types []*entityType, f func(*entityType) any) answer {
	m := amqp.Map{}
	for _, t := range types {
		m = append(m, amqp.Pair{Key: t.name, Value: f(t)})
	}
	return answer{body: m}
}

func listOf(names []string) amqp.List {
	l := make(amqp.List, len(names))
	for i, n := range names {
		l[i] = n
	}
	return l
}

func read(v *view, req *request, t *entityType) answer {
	values, ok := t.entity(v, req.id)
	if !ok {
		return answer{status: failed(404, "no %s %.64q", t.name, req.id)}
	}
	m := amqp.Map{}
	for i, name := range t.names() {
		m = append(m, amqp.Pair{Key: name, Value: values[i]})
	}
	return answer{body: m}
}

func remove(v *view, req *request, t *entityType) answer {
	if t.remove == nil {
		return answer{status: failed(501, "a %s cannot be deleted", t.name)}
	}
	return answer{status: t.remove(v, req.id)}
}

// query lists entities. What is gone between listing and reading is left out,
// and counts as passed over.
func query(v *view, req *request, types []*entityType) answer {
	names := req.attributes
	if len(names) == 0 {
		names = namesOf(types)
	}
	page := page{names: names, offset: req.offset, count: req.count}
	for _, t := range types {
		page.add(v, t)
	}
	return answer{
		body:  amqp.Map{{Key: "attributeNames", Value: listOf(names)}, {Key: "results", Value: page.results}},
		extra: amqp.Map{{Key: "count", Value: int32(page.passed)}, {Key: "total", Value: int64(page.total)}},
	}
}

// namesOf are the attributes of all of types, each once.
func namesOf(types []*entityType) []string {
	var names []string
	for _, t := range types {
		for _, n := range t.names() {
			if len(types) == 1 || !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	return names
}

// page is the part of all entities that a reply holds.
type page struct {
	names         []string
	offset, count int
	results       amqp.List
	passed        int // entities that the reply stands for
	size          int // bytes of results, about
	full          bool
	total         int
}

func (p *page) add(v *view, t *entityType) {
	keys := t.keys(v)
	p.total += len(keys)
	skip := min(p.offset, len(keys))
	p.offset -= skip
	columns := make([]int, len(p.names))
	for i, name := range p.names {
		columns[i] = slices.Index(t.names(), name)
	}
	for _, key := range keys[skip:] {
		if p.full || p.passed == p.count {
			return
		}
		values, ok := t.entity(v, key)
		p.passed++
		if ok {
			p.append(values, columns)
		}
	}
}

func (p *page) append(values []any, columns []int) {
	row := make(amqp.List, len(columns))
	for i, c := range columns {
		if c >= 0 {
			row[i] = values[c]
		}
		p.size += sizeOf(row[i])
	}
	p.results = append(p.results, row)
	p.full = p.size >= maxReply
}

// sizeOf is about how many bytes a value takes.
func sizeOf(v any) int {
	switch v := v.(type) {
	case string:
		return 5 + len(v)
	case amqp.List:
		n := 5
		for _, e := range v {
			n += sizeOf(e)
		}
		return n
	}
	return 9
}
