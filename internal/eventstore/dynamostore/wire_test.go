package dynamostore_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/eventstore/dynamostore"
	"github.com/sluice-iot/sluice/internal/iot"
)

// wire counts requests by operation and breaks them where a test says so.
type wire struct {
	mu     sync.Mutex
	counts map[string]int
	// before may answer in place of the server, after may lose or replace its answer.
	before func(operation string) (*http.Response, error)
	after  func(operation string, resp *http.Response) error
}

func (w *wire) Do(r *http.Request) (*http.Response, error) {
	_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	w.mu.Lock()
	if w.counts == nil {
		w.counts = make(map[string]int)
	}
	w.counts[operation]++
	before, after := w.before, w.after
	w.mu.Unlock()
	if before != nil {
		if resp, err := before(operation); resp != nil || err != nil {
			return resp, err
		}
	}
	resp, err := http.DefaultClient.Do(r)
	if err == nil && after != nil {
		if lost := after(operation, resp); lost != nil {
			resp.Body.Close()
			return nil, lost
		}
	}
	return resp, err
}

// taken returns the counts since the last call, as text.
func (w *wire) taken() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := fmt.Sprint(w.counts)
	w.counts = nil
	return strings.TrimPrefix(text, "map")
}

func (w *wire) set(before func(string) (*http.Response, error), after func(string, *http.Response) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.before, w.after = before, after
}

func wired(t *testing.T) (*dynamostore.Store, *wire, dynamostore.Options) {
	w := &wire{}
	o := options(t)
	plain := o
	o.HTTPClient = w
	s := open(t, o)
	w.taken()
	return s, w, plain
}

var errCut = &net.OpError{Op: "read", Net: "tcp", Err: errors.New("connection reset by peer")}

func answer(status int, code string) *http.Response {
	return response(status, fmt.Sprintf(`{"__type":"com.amazonaws.dynamodb.v20120810#%s","message":"secret internals"}`, code))
}

func canceled(code string) *http.Response {
	return response(400, `{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException","message":"m",`+
		`"CancellationReasons":[{"Code":"`+code+`"},{"Code":"None"}]}`)
}

func response(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/x-amz-json-1.0"}},
		Body: io.NopCloser(strings.NewReader(body))}
}

// edit changes the items of an answer to a query.
func edit(resp *http.Response, f func(items []any) []any) error {
	var doc map[string]any
	d := json.NewDecoder(resp.Body)
	d.UseNumber()
	if err := d.Decode(&doc); err != nil {
		return err
	}
	resp.Body.Close()
	items, _ := doc["Items"].([]any)
	items = f(items)
	doc["Items"], doc["Count"] = items, len(items)
	body, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	resp.Header.Del("X-Amz-Crc32")
	resp.Header.Set("Content-Length", fmt.Sprint(len(body)))
	resp.ContentLength, resp.Body = int64(len(body)), io.NopCloser(bytes.NewReader(body))
	return nil
}

// add appends a batch of one record, as the log does.
func add(p *eventstore.Partition, w *eventstore.Writes, size int, expires int64) {
	b := eventstore.Batch{First: p.End, Last: p.End, At: 1, Expires: expires, Body: make([]byte, size)}
	if p.End++; p.Head == 0 {
		p.Head = b.Last
	}
	p.Bytes += int64(size)
	w.Batches = append(w.Batches, b)
}

func update(s eventstore.Store, f func(p *eventstore.Partition, w *eventstore.Writes)) error {
	errs := s.Update(context.Background(), []eventstore.Change{{Key: key, Apply: func(p *eventstore.Partition, w *eventstore.Writes) error {
		f(p, w)
		return nil
	}}})
	if errs != nil {
		return errs[0]
	}
	return nil
}

func appendOne(s eventstore.Store) error {
	return update(s, func(p *eventstore.Partition, w *eventstore.Writes) { add(p, w, 10, 0) })
}

// state says how the partition stands: its end, its head, its bytes, and where its batches begin.
func state(t *testing.T, s eventstore.Store) string {
	t.Helper()
	p, err := s.Partition(t.Context(), key)
	must(t, err)
	found, err := s.Batches(t.Context(), key, 1, 1<<30)
	must(t, err)
	firsts := []uint64{}
	for _, b := range found {
		firsts = append(firsts, b.First)
	}
	return fmt.Sprint("end ", p.End, " head ", p.Head, " bytes ", p.Bytes, " ", firsts)
}

func wantState(t *testing.T, s eventstore.Store, want string) {
	t.Helper()
	if got := state(t, s); got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
}

func record(writer, counter uint64, device iot.DeviceID, expires int64) eventstore.Record {
	return eventstore.Record{ID: eventstore.RecordID{Writer: writer, Counter: counter}, Tenant: "T", Device: device, Expires: expires,
		Message: fmt.Appendf(nil, "%d/%d", writer, counter)}
}

// noRemoval has requests that only remove fail.
func noRemoval(operation string) (*http.Response, error) {
	if operation == "BatchWriteItem" {
		return nil, errCut
	}
	return nil, nil
}

func iotError(err error) error {
	var own *iot.Error
	if errors.As(err, &own) {
		return own.Sentinel
	}
	return nil
}
