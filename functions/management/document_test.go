package management_test

import (
	"bytes"
	"encoding/json"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"

	"github.com/sluice-iot/sluice/functions/management"
	generated "github.com/sluice-iot/sluice/functions/management/api"
)

// document is the OpenAPI document as a test reads it.
type document struct {
	root     map[string]any
	compiler *jsonschema.Compiler

	mu      sync.Mutex
	schemas map[string]*jsonschema.Schema
}

var openAPI = sync.OnceValue(func() *document {
	var v any
	if err := yaml.Unmarshal(management.Document, &v); err != nil {
		panic(err)
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		panic(err)
	}
	d := &document{root: instance.(map[string]any), compiler: jsonschema.NewCompiler(), schemas: map[string]*jsonschema.Schema{}}
	d.compiler.DefaultDraft(jsonschema.Draft2020)
	if err := d.compiler.AddResource("openapi.json", instance); err != nil {
		panic(err)
	}
	return d
})

// resolve follows a reference; pointer names where the result stands.
func (d *document) resolve(pointer string) (any, string) {
	var v any = d.root
	for name := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil, pointer
		}
		v = m[strings.NewReplacer("~1", "/", "~0", "~").Replace(name)]
	}
	if m, ok := v.(map[string]any); ok {
		if ref, ok := m["$ref"].(string); ok {
			return d.resolve(strings.TrimPrefix(ref, "#"))
		}
	}
	return v, pointer
}

func escape(s string) string { return strings.NewReplacer("~", "~0", "/", "~1").Replace(s) }

func (d *document) validate(pointer string, text []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	schema := d.schemas[pointer]
	if schema == nil {
		var err error
		if schema, err = d.compiler.Compile("openapi.json#" + (&url.URL{Path: pointer}).EscapedPath()); err != nil {
			return err
		}
		d.schemas[pointer] = schema
	}
	instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return err
	}
	return schema.Validate(instance)
}

// operation finds the operation of a request; "" where there is none.
func (d *document) operation(r *http.Request) string {
	segments := strings.Split(strings.TrimSuffix(r.URL.EscapedPath(), "/"), "/")
	for path, item := range d.root["paths"].(map[string]any) {
		want := strings.Split(path, "/")
		if len(want) != len(segments) || item.(map[string]any)[strings.ToLower(r.Method)] == nil {
			continue
		}
		if matches(want, segments) {
			return "/paths/" + escape(path) + "/" + strings.ToLower(r.Method)
		}
	}
	return ""
}

func matches(want, segments []string) bool {
	for i := range want {
		if segments[i] == "" != (want[i] == "") || !strings.HasPrefix(want[i], "{") && want[i] != segments[i] {
			return false
		}
	}
	return true
}

// checkDocumented expects an answer, and a request that succeeded, to be as the
// document describes them.
func checkDocumented(t testing.TB, r *http.Request, sent string, res *http.Response, got []byte) {
	t.Helper()
	if r.Method == http.MethodOptions {
		return
	}
	d := openAPI()
	operation := d.operation(r)
	if operation == "" {
		if err := d.validate("/components/schemas/Error", got); err != nil {
			t.Errorf("%s %s is in no document and got %s: %v", r.Method, r.URL.Path, got, err)
		}
		return
	}
	response, at := d.resolve(operation + "/responses/" + strconv.Itoa(res.StatusCode))
	if response == nil {
		if response, at = d.resolve(operation + "/responses/default"); res.StatusCode < 500 || response == nil {
			t.Errorf("%s: status %d is not in the document: %s", operation, res.StatusCode, got)
			return
		}
	}
	for name := range object(response, "headers") {
		h, _ := d.resolve(at + "/headers/" + name)
		if required, _ := h.(map[string]any)["required"].(bool); required && res.Header.Get(name) == "" {
			t.Errorf("%s: status %d without %s", operation, res.StatusCode, name)
		}
	}
	checkContent(t, at, res.Header.Get("Content-Type"), response, got)
	if body, at := d.resolve(operation + "/requestBody"); sent != "" && res.StatusCode < 300 && res.Header.Get("Content-Type") != "application/x-ndjson" {
		checkContent(t, at, r.Header.Get("Content-Type"), body, []byte(sent))
	}
}

func object(v any, name string) map[string]any {
	m, _ := v.(map[string]any)
	o, _ := m[name].(map[string]any)
	return o
}

// checkContent expects a body to be as one of the described media types.
func checkContent(t testing.TB, at, contentType string, v any, body []byte) {
	t.Helper()
	content := object(v, "content")
	if len(content) == 0 {
		if len(body) > 0 && v != nil && object(v, "headers") == nil {
			t.Errorf("%s: has a body: %s", at, body)
		}
		return
	}
	mediaType, _, _ := mime.ParseMediaType(contentType)
	if content[mediaType] == nil {
		t.Errorf("%s: Content-Type %q is not in the document", at, contentType)
		return
	}
	pointer := at + "/content/" + escape(mediaType) + "/schema"
	texts := [][]byte{body}
	switch mediaType {
	case "application/x-ndjson":
		texts = bytes.Split(bytes.TrimSuffix(body, []byte("\n")), []byte("\n"))
	case "application/yaml":
		return
	}
	for _, text := range texts {
		if err := openAPI().validate(pointer, text); err != nil {
			t.Errorf("%s: %s: %v", at, text, err)
		}
	}
}

// TestDocumentIsServed expects the document in both forms, for anyone.
func TestDocumentIsServed(t *testing.T) {
	a := start(t, management.Options{})
	_, asJSON := a.want(200, "GET", "/v1/openapi.json", "", "Authorization", "")
	_, asYAML := a.want(200, "GET", "/v1/openapi.yaml", "", "Authorization", "")
	var one, two any
	if err := json.Unmarshal([]byte(asJSON), &one); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte(asYAML), &two); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(two)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &two); err != nil || !reflect.DeepEqual(one, two) {
		t.Fatalf("the forms differ, or %v", err)
	}
}

// TestDocumentAndServer expects every operation of the server in the document,
// every one of the document served, and both to ask for the same.
func TestDocumentAndServer(t *testing.T) {
	d, a := openAPI(), start(t, management.Options{})
	inServer := map[string]*generated.Operation{}
	for i := range generated.Operations {
		o := &generated.Operations[i]
		inServer[o.Method+" "+o.Path] = o
	}
	for path, item := range d.root["paths"].(map[string]any) {
		for method := range item.(map[string]any) {
			if method == "parameters" {
				continue
			}
			name := strings.ToUpper(method) + " " + path
			o := inServer[name]
			if o == nil {
				t.Errorf("%s is in the document only", name)
				continue
			}
			delete(inServer, name)
			checkOperation(t, a, o, "/paths/"+escape(path)+"/"+method)
		}
	}
	for name := range inServer {
		t.Errorf("%s is in the server only", name)
	}
}

func checkOperation(t *testing.T, a *api, o *generated.Operation, at string) {
	d := openAPI()
	described, _ := d.resolve(at)
	may, _ := described.(map[string]any)["x-may"].(string)
	if o.May != may || o.Public != (may == "") {
		t.Errorf("%s %s: may %q, public %t; the document says %q", o.Method, o.Path, o.May, o.Public, may)
	}
	body, _ := d.resolve(at + "/requestBody")
	var types []string
	for mediaType := range object(body, "content") {
		types = append(types, mediaType)
	}
	slices.Sort(types)
	if !slices.Equal(types, o.MediaTypes) {
		t.Errorf("%s %s: media types %v; the document says %v", o.Method, o.Path, o.MediaTypes, types)
	}
	path := strings.NewReplacer("{tenantId}", "nobody", "{deviceId}", "nothing").Replace(o.Path)
	res, reply := a.request(o.Method, path, "")
	if res.StatusCode == 405 || strings.Contains(reply, "no such resource") {
		t.Errorf("%s %s is not served: %d %s", o.Method, path, res.StatusCode, reply)
	}
	if res, _ := a.request(o.Method, path, "", "Authorization", ""); (res.StatusCode == 401) == o.Public {
		t.Errorf("%s %s without an operator: %d", o.Method, path, res.StatusCode)
	}
}

// TestDocumentExamples expects examples to be as their schemas say, and members
// to have values.
func TestDocumentExamples(t *testing.T) {
	d := openAPI()
	var walk func(at string, v any)
	walk = func(at string, v any) {
		switch v := v.(type) {
		case map[string]any:
			if examples, ok := v["examples"].([]any); ok && !strings.HasSuffix(at, "/properties") {
				for _, e := range examples {
					b, _ := json.Marshal(e)
					if err := d.validate(at, b); err != nil {
						t.Errorf("%s: example %s: %v", at, b, err)
					}
				}
			}
			for name, member := range v {
				if member == nil {
					t.Errorf("%s: %q has no value; is it the rest of a text with a comma?", at, name)
				}
				if name != "examples" && name != "example" {
					walk(at+"/"+escape(name), member)
				}
			}
		case []any:
			for i, e := range v {
				walk(at+"/"+strconv.Itoa(i), e)
			}
		}
	}
	walk("", d.root)
}
