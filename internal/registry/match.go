package registry

import (
	"cmp"
	"container/heap"
	"encoding/json"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sluice-iot/sluice/internal/iot"
)

// Candidate is a tenant or device that a [Search] may find.
type Candidate struct {
	ID      string
	Doc     []byte            // JSON object of iot.Tenant or iot.Device; only read during the call
	Status  *iot.DeviceStatus // nil for tenants
	Gateway bool              // named in a via of its tenant, or member of a group
}

// Selection is the one meaning of [Search] for all stores (contract: registry,
// section 8): a store offers it every candidate once, in any order, and gets
// how many match and which make the page. It keeps ids and sort keys of at most
// Offset+Limit candidates, and of sort keys no more than 64 MiB. Not for concurrent use.
type Selection struct {
	search  *Search
	tests   []test
	left    int // documents that may still be read
	matches int
	best    hits // the last one in the order of the search on top
	kept    int  // bytes of the texts in best
}

// maxKept bounds what is kept of the texts that a search sorts by: a document has
// room for long ones, and a page far behind keeps those of all before it.
const maxKept = 64 << 20

// NewSelection prepares a search. A filter without path or with a value of
// another type matches nothing.
func NewSelection(s Search) *Selection {
	sel := &Selection{search: &s, left: cmp.Or(s.MaxScan, DefaultMaxScan), best: hits{order: s.Sort}}
	for i := range s.Filters {
		sel.tests = append(sel.tests, newTest(&s.Filters[i]))
	}
	return sel
}

// Offer looks at one candidate. iot.ErrInvalid when the search has read or kept as
// much as it may, iot.ErrTimeout when nobody waits for it: it is over then.
func (s *Selection) Offer(c Candidate) error {
	select {
	case <-s.search.Done:
		return iot.Errorf(iot.ErrTimeout, "the search took too long")
	default:
	}
	if s.left--; s.left < 0 {
		return s.TooMany()
	}
	if s.search.IsGateway != nil && c.Gateway != *s.search.IsGateway {
		return nil
	}
	for i := range s.tests {
		if !s.tests[i].matches(&c) {
			return nil
		}
	}
	s.matches++
	size := max(s.search.Offset, 0) + max(s.search.Limit, 0)
	if size <= 0 { // nothing asked for, or the sum is beyond what an int holds
		return nil
	}
	h := hit{id: c.ID, keys: make([]any, len(s.search.Sort))}
	for i := range s.search.Sort {
		h.keys[i] = sortKey(&c, &s.search.Sort[i])
	}
	if len(s.best.all) < size {
		s.kept += h.bytes()
		heap.Push(&s.best, h)
	} else if s.best.compare(&h, &s.best.all[0]) < 0 {
		s.kept += h.bytes() - s.best.all[0].bytes()
		s.best.all[0] = h
		heap.Fix(&s.best, 0)
	}
	if s.kept > maxKept {
		return invalid("the search has to keep more than %d bytes of what it sorts by: ask for a page further to the front, or narrow it", maxKept)
	}
	return nil
}

// TooMany is the error of a search that has to read more than it may, for a
// store that knows so before it begins.
func (s *Selection) TooMany() error {
	limit := cmp.Or(s.search.MaxScan, DefaultMaxScan)
	for i := range s.search.Filters {
		if f := &s.search.Filters[i]; len(f.Path) > 0 && f.Path[0] != "id" && f.Path[0] != "status" && f.indexable() {
			return invalid("the search has to read more than %d documents: narrow it, or declare an index on %s", limit, pointer(f.Path))
		}
	}
	if len(s.search.Sort) > 0 {
		return invalid("the search has to read more than %d documents to sort by %s: narrow it by a filter on an indexed path",
			limit, pointer(s.search.Sort[0].Path))
	}
	return invalid("the search has to read more than %d documents: narrow it by a filter on an indexed path, without wildcard at its beginning", limit)
}

// Page returns how many candidates matched, and the ids of the page in order.
func (s *Selection) Page() (total int, ids []string) {
	all := slices.Clone(s.best.all)
	slices.SortFunc(all, func(a, b hit) int { return s.best.compare(&a, &b) })
	first := min(max(s.search.Offset, 0), len(all))
	for _, h := range all[first:] {
		ids = append(ids, h.id)
	}
	return s.matches, ids
}

func pointer(path []string) string {
	escape := strings.NewReplacer("~", "~0", "/", "~1")
	var b strings.Builder
	for _, name := range path {
		b.WriteByte('/')
		b.WriteString(escape.Replace(name))
	}
	return b.String()
}

// each is [each] for a candidate: its id and status are not in the document.
func (c *Candidate) each(path []string, f func(any) bool) bool {
	switch {
	case len(path) == 1 && path[0] == "id":
		return f(c.ID)
	case len(path) > 0 && path[0] == "status":
		if c.Status == nil {
			return true
		}
		doc, err := json.Marshal(c.Status)
		if err != nil { // a time that JSON cannot hold
			return true
		}
		return each(doc, path[1:], f)
	}
	return each(c.Doc, path, f)
}

// test is a prepared filter.
type test struct {
	path    []string
	value   any     // of a filter without wildcards
	pattern *string // of one with
	absent  bool    // whether a member that is missing matches
}

func newTest(f *Filter) test {
	t := test{path: f.Path, value: f.Value}
	switch v := f.Value.(type) {
	case bool:
		t.absent = v && isPath(f.Path, "enabled")
	case float64:
	case string:
		if strings.ContainsAny(v, "*?") {
			t.pattern = &v
		}
	default:
		t.value = absent{}
	}
	return t
}

// indexable reports whether an index on the path could answer the filter.
func (f *Filter) indexable() bool {
	s, ok := f.Value.(string)
	return !ok || s == "" || s[0] != '*' && s[0] != '?'
}

func isPath(path []string, name string) bool { return len(path) == 1 && path[0] == name }

func (t *test) matches(c *Candidate) bool {
	found := false
	none := c.each(t.path, func(v any) bool {
		found = true
		if t.pattern == nil {
			return v != t.value
		}
		s, ok := v.(string)
		return !ok || !glob(*t.pattern, s)
	})
	return !none || t.absent && !found
}

// glob matches a whole string: * stands for any run of characters, ? for one.
func glob(pattern, s string) bool {
	p, i := 0, 0
	star, from := -1, 0 // the last * and where its run ends so far
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, i
			p++
			continue
		case p < len(pattern) && pattern[p] == '?':
			_, n := utf8.DecodeRuneInString(s[i:])
			p, i = p+1, i+n
			continue
		case p < len(pattern) && pattern[p] == s[i]:
			p, i = p+1, i+1
			continue
		case star < 0:
			return false
		}
		_, n := utf8.DecodeRuneInString(s[from:])
		from += n
		p, i = star+1, from
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// sortKey is what a candidate is sorted by: of several values the first one in the order.
func sortKey(c *Candidate, o *Order) any {
	var key any = absent{}
	c.each(o.Path, func(v any) bool {
		if n := compareValues(v, key); key == (absent{}) || n < 0 != o.Descending && n != 0 {
			key = v
		}
		return true
	})
	return key
}

// compareValues orders absent, false, true, numbers, strings by bytes.
func compareValues(a, b any) int {
	if n := cmp.Compare(rank(a), rank(b)); n != 0 {
		return n
	}
	switch a := a.(type) {
	case float64:
		return cmp.Compare(a, b.(float64))
	case string:
		return strings.Compare(a, b.(string))
	}
	return 0
}

func rank(v any) int {
	switch v := v.(type) {
	case bool:
		if v {
			return 2
		}
		return 1
	case float64:
		return 3
	case string:
		return 4
	}
	return 0
}

// hit is a candidate that matched.
type hit struct {
	id   string
	keys []any
}

// bytes is how much memory its texts take.
func (h *hit) bytes() (n int) {
	for _, k := range h.keys {
		if s, ok := k.(string); ok {
			n += len(s)
		}
	}
	return n
}

// hits is a heap with the last one of the order on top.
type hits struct {
	order []Order
	all   []hit
}

func (h *hits) compare(a, b *hit) int {
	for i := range h.order {
		if n := compareValues(a.keys[i], b.keys[i]); n != 0 {
			if h.order[i].Descending {
				return -n
			}
			return n
		}
	}
	return strings.Compare(a.id, b.id)
}

func (h *hits) Len() int           { return len(h.all) }
func (h *hits) Less(i, j int) bool { return h.compare(&h.all[i], &h.all[j]) > 0 }
func (h *hits) Swap(i, j int)      { h.all[i], h.all[j] = h.all[j], h.all[i] }
func (h *hits) Push(x any)         { h.all = append(h.all, x.(hit)) }
func (h *hits) Pop() any {
	last := h.all[len(h.all)-1]
	h.all = h.all[:len(h.all)-1]
	return last
}
