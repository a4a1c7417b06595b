package registry

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxIndexText is how many bytes of a string an index holds: what fits the keys
// of every database.
const maxIndexText = 256

// IndexValues returns what an index on a path holds for a document: the scalars
// there, those of an array each, without repeats, as [IndexText] writes them. An
// absent enabled is true. A document that is no JSON object has none.
func IndexValues(doc []byte, path []string) (texts []string) {
	seen := map[string]bool{} // a hostile array may have very many elements
	each(doc, path, func(v any) bool {
		if t := IndexText(v); !seen[t] {
			seen[t] = true
			texts = append(texts, t)
		}
		return true
	})
	if texts == nil && isPath(path, "enabled") {
		texts = append(texts, IndexText(true))
	}
	return texts
}

// IndexText writes a scalar so that equal ones are equal and those of different
// kinds differ; of a long string only the beginning. It is valid UTF-8 without
// NUL, which not every database takes, and the text of a string begins with the
// texts of its prefixes.
func IndexText(v any) string {
	switch v := v.(type) {
	case bool:
		return "b" + strconv.FormatBool(v)
	case float64:
		if v == 0 {
			v = 0 // -0 is the same number
		}
		return "n" + strconv.FormatFloat(v, 'g', -1, 64)
	case string:
		if len(v) > maxIndexText {
			v = v[:maxIndexText]
		}
		if strings.ContainsAny(v, "\x00\x01") {
			v = withoutNUL.Replace(v)
		}
		return "s" + strings.ToValidUTF8(v, "")
	}
	return ""
}

var withoutNUL = strings.NewReplacer("\x00", "\x01\x01", "\x01", "\x01\x02")

// IndexUse is how an index helps with a [Search].
type IndexUse struct {
	Filter int    // of Search.Filters
	ID     bool   // by the identifier itself, not by an index on a path
	Path   int    // of the indexed paths, unless ID
	Exact  bool   // equal to Text, else beginning with it
	Text   string // as [IndexText] writes it, or an identifier or its beginning
	// Only reports that whatever the index finds matches, and that the order is
	// that of the ids: no document need be read but those of the page.
	Only bool
}

// UseIndex finds the filter that the identifier or an index on one of the paths
// answers best; false when none does.
func (s *Search) UseIndex(indexed [][]string) (best IndexUse, ok bool) {
	for i := range s.Filters {
		u, can := s.use(i, indexed)
		if can && (!ok || u.better(&best)) {
			best, ok = u, true
		}
	}
	best.Only = ok && best.Only && len(s.Filters) == 1 && len(s.Sort) == 0 && s.IsGateway == nil
	return best, ok
}

// better is a guess at which finds less. A boolean finds half of all.
func (u *IndexUse) better(than *IndexUse) bool {
	if a, b := u.isBool(), than.isBool(); a != b {
		return b
	}
	if u.Exact != than.Exact {
		return u.Exact
	}
	if u.ID != than.ID {
		return u.ID
	}
	return len(u.Text) > len(than.Text)
}

func (u *IndexUse) isBool() bool { return !u.ID && strings.HasPrefix(u.Text, "b") }

func (s *Search) use(i int, indexed [][]string) (u IndexUse, ok bool) {
	f := &s.Filters[i]
	u = IndexUse{Filter: i, ID: isPath(f.Path, "id"), Exact: true, Only: true}
	if !u.ID {
		u.Path = slices.IndexFunc(indexed, func(p []string) bool { return slices.Equal(p, f.Path) })
		if u.Path < 0 || f.Path[0] == "status" { // which is not in the documents
			return u, false
		}
	}
	text, isText := f.Value.(string)
	if !isText {
		u.Text = IndexText(f.Value)
		return u, !u.ID && u.Text != ""
	}
	if wild := strings.IndexAny(text, "*?"); wild >= 0 {
		u.Exact, u.Only = false, text[wild:] == "*"
		if text = text[:wild]; text == "" {
			return u, false
		}
	}
	if u.ID {
		u.Text = text
		return u, true
	}
	// An index holds the beginning of long strings: what it finds must be looked at.
	u.Only = u.Only && len(text) <= maxIndexText-utf8.UTFMax
	u.Text = IndexText(text)
	if len(text) > maxIndexText {
		u.Exact = true // the beginning is all that is there
	}
	return u, true
}

// Plain reports that a search asks for every tenant or device by id: its total
// is their number, and only the page need be read.
func (s *Search) Plain() bool {
	return len(s.Filters) == 0 && len(s.Sort) == 0 && s.IsGateway == nil
}
