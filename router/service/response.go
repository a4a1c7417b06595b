package service

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/status"
)

// answer is what an operation came to.
type answer struct {
	status int32
	text   string // of a failure
	body   any    // of a success: what is written as JSON, nil = nothing
	tenant string
	device string
	maxAge time.Duration // below a second: not to be kept
}

func failed(code int32, format string, args ...any) answer {
	return answer{status: code, text: fmt.Sprintf(format, args...)}
}

// failure is the answer to a call that failed. What took too long counts as
// unavailable, because Hono's clients know no 504.
func failure(err error) answer {
	return answer{status: int32(status.Of(err).HTTP), text: status.Text(err)}
}

// encode makes the reply to q (contract: messaging 2.4).
func encode(q *request, a *answer) ([]byte, error) {
	if a.status >= 300 {
		return encodeFailure(q, a)
	}
	to := q.address
	if to == Tenant && a.tenant != "" {
		to += "/" + a.tenant
	}
	if a.device != "" {
		to += "/" + a.device
	}
	m := amqp.Message{
		Properties:            &amqp.Properties{MessageID: uuid.NewString(), To: to, CorrelationID: correlationText(q.correlation)},
		ApplicationProperties: amqp.Map{{Key: "status", Value: a.status}},
	}
	if a.body != nil {
		body, err := json.Marshal(a.body)
		if err != nil {
			return nil, fmt.Errorf("encode: %w", err)
		}
		cache := "no-cache"
		if seconds := int64(a.maxAge / time.Second); seconds > 0 {
			cache = "max-age = " + strconv.FormatInt(seconds, 10)
		}
		m.Properties.ContentType, m.Data = "application/json", [][]byte{body}
		m.ApplicationProperties = append(m.ApplicationProperties, amqp.Pair{Key: "cache_control", Value: cache})
	}
	for _, p := range [...]struct{ name, value string }{{"tenant_id", a.tenant}, {"device_id", a.device}} {
		if p.value != "" {
			m.ApplicationProperties = append(m.ApplicationProperties, amqp.Pair{Key: p.name, Value: p.value})
		}
	}
	return m.Append(nil)
}

// encodeFailure makes a reply that says what was wrong and no more, with the
// correlation-id as it came.
func encodeFailure(q *request, a *answer) ([]byte, error) {
	m := amqp.Message{
		Properties:            &amqp.Properties{CorrelationID: q.correlation, ContentType: "text/plain"},
		ApplicationProperties: amqp.Map{{Key: "status", Value: a.status}},
		Data:                  [][]byte{[]byte(a.text)},
	}
	return m.Append(nil)
}
