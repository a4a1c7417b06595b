package invoker

import (
	"crypto/tls"
	"log/slog"
	"strings"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/events/invoke/http"
	"github.com/sluice-iot/sluice/events/invoke/lambda"
)

// lambdaPrefix stands before the name or ARN of a Lambda function.
const lambdaPrefix = "lambda:"

// Invoker is one that the caller closes.
type Invoker interface {
	events.Invoker
	Close()
}

// Options says who asks. Source is required.
type Options struct {
	Source string       // CloudEvents source: //I/<component>/<instance>
	TLS    *tls.Config  // the component's own certificate, for https
	Log    *slog.Logger // default: discard
}

// New returns the invoker for where functions are; it opens nothing. Region,
// endpoint and credentials of Lambda are those of the environment.
func New(where string, o Options) (Invoker, error) {
	if function, ok := strings.CutPrefix(where, lambdaPrefix); ok {
		inv, err := lambda.New(lambda.Config{Function: function, Source: o.Source, Log: o.Log})
		if err != nil {
			return nil, err
		}
		return inv, nil
	}
	inv, err := http.New(http.Config{URL: where, Source: o.Source, TLS: o.TLS, Log: o.Log})
	if err != nil {
		return nil, err
	}
	return inv, nil
}
