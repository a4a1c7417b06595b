package notices_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/sluice-iot/sluice/events"
	cehttp "github.com/sluice-iot/sluice/events/http"
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/router/notices"
)

// sinkhole takes every notification.
type sinkhole struct{}

func (sinkhole) Publish(_ string, _ []byte, done func(amqp.Raw)) { done(amqp.StateAccepted) }

// BenchmarkIngress is a batch on its way from the request to the adapters' queue;
// one operation is one batch.
func BenchmarkIngress(b *testing.B) {
	for _, n := range []int{1, 250} {
		b.Run(fmt.Sprint("facts=", n), func(b *testing.B) {
			f := notices.New(notices.Options{Publisher: sinkhole{}})
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				f.Run(ctx)
			}()
			defer func() {
				cancel()
				<-done
			}()
			i := notices.NewIngress(notices.IngressOptions{Name: "sluice.local", Take: f.Take})
			list := make([]event.Event, n)
			for k := range list {
				c := device
				c.Sequence = uint64(k + 1)
				list[k] = encoded(b, c, "sluice.local")
			}
			body, err := json.Marshal(list)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				r := by(post(b, nil, cehttp.BatchType), "function")
				r.Body, r.ContentLength = readCloser{bytes.NewReader(body)}, int64(len(body))
				w := httptest.NewRecorder()
				if i.ServeHTTP(w, r); w.Code != 202 {
					b.Fatal(w.Code, w.Body)
				}
			}
		})
	}
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }

// BenchmarkTake is one new fact, without encoding.
func BenchmarkTake(b *testing.B) {
	f := notices.New(notices.Options{Publisher: sinkhole{}, Verifier: &verifier{}})
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Run(ctx)
	}()
	defer func() {
		cancel()
		<-done
	}()
	c := device
	c.Change = "CREATE"
	facts := make([]events.Fact, 1)
	b.ReportAllocs()
	for b.Loop() {
		c.Sequence++
		facts[0] = c
		if err := f.Take(ctx, facts); err != nil {
			b.Fatal(err)
		}
	}
}
