package pgstore

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"github.com/sluice-iot/sluice/internal/registry"
)

// clause is a condition of a search with its parameters.
type clause struct {
	text string
	args []any
}

// arg adds a parameter and returns its name.
func (c *clause) arg(v any) string {
	c.args = append(c.args, v)
	return fmt.Sprint("$", len(c.args))
}

func (c *clause) and(text string) { c.text += " AND " + text }

// byText is a column that equals or begins with what an index asks for. A text
// that no row can have finds nothing.
func (c *clause) byText(column string, u *registry.IndexUse) {
	if !storable(u.Text) {
		c.and("false")
		return
	}
	if u.Exact {
		c.and(column + " = " + c.arg(u.Text))
		return
	}
	c.and(column + " >= " + c.arg(u.Text))
	if end, ok := nextText(u.Text); ok {
		c.and(column + " < " + c.arg(end))
	}
}

// byBytes is the same for a column of bytes.
func (c *clause) byBytes(column string, u *registry.IndexUse) {
	if u.Exact {
		c.and(column + " = " + c.arg([]byte(u.Text)))
		return
	}
	c.and(column + " >= " + c.arg([]byte(u.Text)))
	if end, ok := nextBytes([]byte(u.Text)); ok {
		c.and(column + " < " + c.arg(end))
	}
}

// nextText is the first text after all that begin with the prefix; false when
// there is none. The order of the bytes of UTF-8 is that of the code points.
func nextText(prefix string) (string, bool) {
	for len(prefix) > 0 {
		last, n := utf8.DecodeLastRuneInString(prefix)
		prefix = prefix[:len(prefix)-n]
		if last++; last == 0xD800 {
			last = 0xE000 // surrogates are no text
		}
		if last <= utf8.MaxRune {
			return prefix + string(last), true
		}
	}
	return "", false
}

func nextBytes(prefix []byte) ([]byte, bool) {
	next := bytes.Clone(prefix)
	for len(next) > 0 && next[len(next)-1] == 0xff {
		next = next[:len(next)-1]
	}
	if len(next) == 0 {
		return nil, false
	}
	next[len(next)-1]++
	return next, true
}

// isGateway is the condition that a device acts for others: another one names
// it, or it is member of a group.
const isGateway = `(EXISTS (SELECT 1 FROM vias v WHERE v.tenant = d.tenant AND v.gateway = d.id)
	OR EXISTS (SELECT 1 FROM members m WHERE m.tenant = d.tenant AND m.device = d.id))`

// deviceClause is what the database answers of a search: what an index finds,
// and whether a device is a gateway. The filters remain to be looked at.
func deviceClause(tenant string, s *registry.Search, use *registry.IndexUse, path int64) *clause {
	c := &clause{}
	c.text = "d.tenant = " + c.arg(tenant)
	switch {
	case use == nil:
	case use.ID:
		c.byText("d.id", use)
	default:
		in := &clause{args: c.args}
		in.text = "k.tenant = $1 AND k.path = " + in.arg(path)
		in.byBytes("k.value", use)
		c.args = in.args
		c.and("d.id IN (SELECT k.device FROM index_keys k WHERE " + in.text + ")")
	}
	if s.IsGateway != nil {
		condition := isGateway
		if !*s.IsGateway {
			condition = "NOT " + condition
		}
		c.and(condition)
	}
	return c
}
