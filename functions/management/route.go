package management

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/sluice-iot/sluice/functions/management/api"
)

// resource is the operations of one path, by method.
type resource struct {
	segments   []string // of the path; {name} for a variable one
	operations map[string]*api.Operation
}

// resources are the paths of the document.
var resources = func() []*resource {
	var all []*resource
	byPath := map[string]*resource{}
	for i := range api.Operations {
		o := &api.Operations[i]
		r := byPath[o.Path]
		if r == nil {
			r = &resource{segments: strings.Split(strings.TrimPrefix(o.Path, "/"), "/"), operations: map[string]*api.Operation{}}
			byPath[o.Path] = r
			all = append(all, r)
		}
		r.operations[o.Method] = o
	}
	return all
}()

// route finds the resource of a request and sets its path values; nil where
// there is none. One slash at the end is passed over.
func route(r *http.Request) *resource {
	path, ok := strings.CutPrefix(r.URL.EscapedPath(), "/")
	if !ok {
		return nil
	}
	segments := strings.Split(strings.TrimSuffix(path, "/"), "/")
	for _, res := range resources {
		if values, ok := res.match(segments); ok {
			for name, v := range values {
				r.SetPathValue(name, v)
			}
			return res
		}
	}
	return nil
}

func (res *resource) match(segments []string) (values map[string]string, ok bool) {
	if len(segments) != len(res.segments) {
		return nil, false
	}
	for i, s := range res.segments {
		name, variable := strings.CutPrefix(s, "{")
		if !variable {
			if segments[i] != s {
				return nil, false
			}
			continue
		}
		v, err := url.PathUnescape(segments[i])
		if err != nil || v == "" {
			return nil, false
		}
		if values == nil {
			values = make(map[string]string, 2)
		}
		values[strings.TrimSuffix(name, "}")] = v
	}
	return values, true
}

func (res *resource) methods() string {
	all := make([]string, 0, len(res.operations))
	for m := range res.operations {
		all = append(all, m)
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}
