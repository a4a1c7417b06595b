package lambda

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-lambda-go/lambdacontext"

	"github.com/sluice-iot/sluice/internal/iot"
)

// Source is what delivers a payload.
type Source string

// The sources.
const (
	Direct   Source = "direct"   // the Invoke API
	HTTP     Source = "http"     // a function URL or API Gateway
	Queue    Source = "sqs"      // an event source mapping of SQS
	Bus      Source = "bus"      // a rule of EventBridge
	Schedule Source = "schedule" // a scheduled rule, or EventBridge Scheduler
)

var sources = []Source{Direct, HTTP, Queue, Bus, Schedule}

// Accept says which sources are accepted, and for each by which alias of the
// function; "" is any. IAM permits by alias who invokes, and Lambda says by
// which one it was invoked: what comes by the alias of the schedule was sent by
// whom the alias' policy permits, whatever the payload says.
type Accept map[Source]string

// DefaultAccept takes what proves itself: direct invocations, authorised by IAM,
// and HTTP requests.
var DefaultAccept = Accept{Direct: "", HTTP: ""}

// ParseAccept reads a list such as "direct,http:url,schedule:cron": sources with
// the alias that each comes by, where it must be one.
func ParseAccept(text string) (Accept, error) {
	a := Accept{}
	for item := range strings.SplitSeq(text, ",") {
		name, alias, _ := strings.Cut(strings.TrimSpace(item), ":")
		if !slices.Contains(sources, Source(name)) {
			return nil, fmt.Errorf("%q is no source of invocations; expected some of %v, each with :ALIAS where it must come by one", name, sources)
		}
		a[Source(name)] = alias
	}
	return a, nil
}

// check returns iot.ErrForbidden for what this deployment does not take.
func (a Accept) check(ctx context.Context, s Source) error {
	alias, ok := a[s]
	if !ok {
		return iot.Errorf(iot.ErrForbidden, "payloads of the source %s are not accepted here", s)
	}
	if alias != "" && alias != aliasOf(ctx) {
		return iot.Errorf(iot.ErrForbidden, "payloads of the source %s are accepted by another alias of this function only", s)
	}
	return nil
}

// aliasOf is the alias or version that the function was invoked by, "" for none.
func aliasOf(ctx context.Context) string {
	lc, ok := lambdacontext.FromContext(ctx)
	if !ok {
		return ""
	}
	// arn:aws:lambda:REGION:ACCOUNT:function:NAME:ALIAS
	if parts := strings.Split(lc.InvokedFunctionArn, ":"); len(parts) == 8 {
		return parts[7]
	}
	return ""
}
