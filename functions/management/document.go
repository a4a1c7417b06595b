package management

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"

	"gopkg.in/yaml.v3"

	"github.com/sluice-iot/sluice/functions/management/api"
)

// Document is the OpenAPI document of the API, in YAML.
//
//go:embed openapi.yaml
var Document []byte

// documentJSON is [Document] as JSON.
var documentJSON = sync.OnceValues(func() (json.RawMessage, error) {
	var v any
	if err := yaml.Unmarshal(Document, &v); err != nil {
		return nil, fmt.Errorf("the OpenAPI document: %w", err)
	}
	return api.Encode(v)
})

func (s *server) GetDocumentJSON(context.Context, api.GetDocumentJSONRequestObject) (api.GetDocumentJSONResponseObject, error) {
	b, err := documentJSON()
	return api.GetDocumentJSON200Response{Body: b}, err
}

func (s *server) GetDocumentYAML(context.Context, api.GetDocumentYAMLRequestObject) (api.GetDocumentYAMLResponseObject, error) {
	return api.GetDocumentYAML200Response{Stream: func(w http.ResponseWriter) error {
		w.Write(Document) // nobody is left to tell of an error
		return nil
	}}, nil
}
