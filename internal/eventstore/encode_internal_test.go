package eventstore

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
)

func TestStateJSON(t *testing.T) {
	for _, p := range []Partition{
		{},
		{Done: Spans{{0, 0}}, Runs: Runs{{}}},
		{Done: Spans{{3, 4}, {6, 9}, {math.MaxUint64 - 1, math.MaxUint64}},
			Runs: Runs{{From: 1, To: 2, Attempt: math.MaxUint16, Failed: 3, Next: math.MaxInt64, Out: true}, {From: 5, To: 5, Next: math.MinInt64}, {From: math.MaxUint64, To: math.MaxUint64, Next: 7}}},
	} {
		b, err := json.Marshal(&p)
		if err != nil {
			t.Fatal(err)
		}
		var got Partition
		if err := json.Unmarshal(b, &got); err != nil || !reflect.DeepEqual(got, p) {
			t.Errorf("%s: got %+v, %v; want %+v", b, got, err, p)
		}
	}
	for _, s := range []string{`{"d":[1]}`, `{"r":[1,2,3,4,5]}`, `{"d":{}}`, `{"r":["x"]}`} {
		if err := json.Unmarshal([]byte(s), new(Partition)); err == nil {
			t.Errorf("%s is taken", s)
		}
	}
}

// TestStateSize holds the largest state that a partition may get: an item of DynamoDB has 400 KB.
func TestStateSize(t *testing.T) {
	p := NewPartition()
	at := uint64(1 << 50)
	// One more read, all of it settled in the worst order, comes on top.
	for range maxRuns + MaxRecords {
		p.Runs = append(p.Runs, Run{From: at, To: at, Attempt: uint16(rand.IntN(20)), Failed: uint16(rand.IntN(10)), Next: 1_800_000_000_000 + rand.Int64N(lastRetry), Out: rand.IntN(2) == 0})
		at += 1 + rand.Uint64N(3)
		p.Done = append(p.Done, Span{at, at + rand.Uint64N(30)})
		at += 31 + rand.Uint64N(100)
	}
	for range maxWriters {
		p.Writers = append(p.Writers, Writer{rand.Uint64(), rand.Uint64(), rand.Uint64()})
	}
	b, err := json.Marshal(&p)
	if err != nil {
		t.Fatal(err)
	}
	var z bytes.Buffer
	w, err := flate.NewWriter(&z, flate.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes, %d compressed", len(b), z.Len())
	if z.Len() > 200<<10 {
		t.Errorf("the largest state has %d bytes compressed", z.Len())
	}
}
