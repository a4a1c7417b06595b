package api_test

import (
	"encoding/json"
	"testing"

	"github.com/sluice-iot/sluice/functions/management/api"
	"github.com/sluice-iot/sluice/internal/iot"
)

func TestEncodeEscapesNothingForHTML(t *testing.T) {
	for _, free := range []string{
		`{"u":"a&b<c>&&"}`, `{"&":"<>"}`, `{"u":"\\u0026"}`, `{"u":"\\\\u003c\\"}`, `{"u":"\"<\"\n\u0001\\"}`, `{"u":"ä€😀"}`, `{"u":"x"}`,
	} {
		kept, err := json.Marshal(iot.Tenant{Ext: json.RawMessage(free)}) // as a store does
		if err != nil {
			t.Fatal(err)
		}
		var tenant iot.Tenant
		if err := json.Unmarshal(kept, &tenant); err != nil {
			t.Fatal(err)
		}
		got, err := api.Encode(tenant)
		if want := `{"ext":` + free + `}`; err != nil || string(got) != want {
			t.Errorf("got %s, %v, want %s", got, err, want)
		}
	}
}
