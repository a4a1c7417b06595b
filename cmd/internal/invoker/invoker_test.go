package invoker_test

import (
	"fmt"
	"testing"

	"github.com/sluice-iot/sluice/cmd/internal/invoker"
)

func TestNew(t *testing.T) {
	t.Setenv("AWS_REGION", "")
	t.Setenv("AWS_DEFAULT_REGION", "")
	for where, want := range map[string]string{
		"https://identity.example":                                      "*http.Invoker",
		"lambda:arn:aws:lambda:eu-north-1:123456789012:function:f:live": "*lambda.Invoker",
		"lambda:f": "", // no region
		"lambda:":  "",
		"identity": "",
	} {
		inv, err := invoker.New(where, invoker.Options{Source: "//x"})
		got := ""
		if err == nil {
			got = fmt.Sprintf("%T", inv)
			inv.Close()
		}
		if got != want {
			t.Errorf("%s: %s, %v, want %s", where, got, err, want)
		}
	}
}
