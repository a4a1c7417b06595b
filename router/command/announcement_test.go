package command_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/router/command"
)

func TestAnnouncementsThatAreRead(t *testing.T) {
	for _, tt := range []struct {
		data           string
		set, drop, via int
	}{
		{`{"adapter":"A/0123456789ab"}`, 0, 0, 0},
		{`{"adapter":"A","reset":true,"set":null,"drop":[],"more":{"x":[1]}}`, 0, 0, 0},
		{`{"adapter":"A","set":[["T","D",1732362000000,0,"hono-mqtt",1],["T","E",0,1732362000001,"",0]],"drop":[["T","F"]],"via":[["T","D","G"]]}`, 2, 1, 1},
		{`{"adapter":"A","set":[["T","` + strings.Repeat("d", 256) + `",1,0,"x",1.0]]}`, 1, 0, 0},
	} {
		set, drop, via, err := command.ParseAnnouncement([]byte(tt.data))
		if err != nil || set != tt.set || drop != tt.drop || via != tt.via {
			t.Errorf("%s: %d, %d, %d, %v", tt.data, set, drop, via, err)
		}
	}
}

func TestAnnouncementsThatAreRefused(t *testing.T) {
	rows := func(n int, row string) string { return strings.TrimSuffix(strings.Repeat(row+",", n), ",") }
	for _, tt := range []struct{ name, data, want string }{
		{"nothing", ``, "JSON object"},
		{"an array", `[]`, "JSON object"},
		{"text behind", `{"adapter":"A"}x`, "JSON object"},
		{"no adapter", `{}`, "member adapter"},
		{"adapter of another type", `{"adapter":1}`, "JSON object"},
		{"adapter too long", `{"adapter":"` + strings.Repeat("A", 257) + `"}`, "member adapter"},
		{"a row that is none", `{"adapter":"A","set":["T"]}`, "JSON object"},
		{"null row", `{"adapter":"A","set":[null]}`, "set[0]"},
		{"short row", `{"adapter":"A","set":[["T","D",1,0,"x"]]}`, "set[0]"},
		{"long row", `{"adapter":"A","set":[["T","D",1,0,"x",0,0]]}`, "set[0]"},
		{"second row", `{"adapter":"A","set":[["T","D",1,0,"x",0],["T","D",1,0,"x",2]]}`, "set[1]"},
		{"no tenant", `{"adapter":"A","set":[["","D",1,0,"x",0]]}`, "set[0]"},
		{"no device", `{"adapter":"A","set":[["T","",1,0,"x",0]]}`, "set[0]"},
		{"device of another type", `{"adapter":"A","set":[["T",1,1,0,"x",0]]}`, "set[0]"},
		{"device too long", `{"adapter":"A","set":[["T","` + strings.Repeat("d", 257) + `",1,0,"x",0]]}`, "set[0]"},
		{"time before all", `{"adapter":"A","set":[["T","D",-1,0,"x",0]]}`, "set[0]"},
		{"part of a ms", `{"adapter":"A","set":[["T","D",1.5,0,"x",0]]}`, "set[0]"},
		{"time after all", `{"adapter":"A","set":[["T","D",1e300,0,"x",0]]}`, "set[0]"},
		{"time that is no number", `{"adapter":"A","set":[["T","D","1",0,"x",0]]}`, "set[0]"},
		{"until that is no number", `{"adapter":"A","set":[["T","D",1,null,"x",0]]}`, "set[0]"},
		{"type that is none", `{"adapter":"A","set":[["T","D",1,0,null,0]]}`, "set[0]"},
		{"all that is true", `{"adapter":"A","set":[["T","D",1,0,"x",true]]}`, "set[0]"},
		{"drop too short", `{"adapter":"A","drop":[["T"]]}`, "drop[0]"},
		{"drop too long", `{"adapter":"A","drop":[["T","D",1]]}`, "drop[0]"},
		{"via without gateway", `{"adapter":"A","via":[["T","D"]]}`, "via[0]"},
		{"via with an empty one", `{"adapter":"A","via":[["T","D",""]]}`, "via[0]"},
		{"too many rows", `{"adapter":"A","set":[` + rows(600, `["T","D",1,0,"x",0]`) + `],"drop":[` + rows(401, `["T","D"]`) + `]}`, "1000 rows: got 1001"},
		{"too large", `{"adapter":"A","x":"` + strings.Repeat("x", 60*1024) + `"}`, "61440 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, _, err := command.ParseAnnouncement([]byte(tt.data))
			if err == nil || err.Condition != "hono:bad-request" || !strings.Contains(err.Description, tt.want) {
				t.Errorf("got %v, want hono:bad-request with %q", err, tt.want)
			}
		})
	}
}

func TestAnnouncementMessages(t *testing.T) {
	for _, tt := range []struct {
		name string
		m    amqp.Message
		want string
	}{
		{"one section", amqp.Message{Data: [][]byte{[]byte(`{"adapter":"A"}`)}}, "A"},
		{"with annotations", amqp.Message{MessageAnnotations: amqp.Map{{Key: amqp.Symbol("x"), Value: "y"}}, Properties: &amqp.Properties{To: "device_directory"},
			Data: [][]byte{[]byte(`{"adapter":"A"}`)}}, "A"},
		{"none", amqp.Message{}, ""},
		{"two", amqp.Message{Data: [][]byte{[]byte(`{"adapter"`), []byte(`:"A"}`)}}, ""},
		{"a value", amqp.Message{HasValue: true, Value: `{"adapter":"A"}`}, ""},
	} {
		b, err := tt.m.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		got, refused := command.ReadAnnouncement(b)
		if got != tt.want || (refused != nil) != (tt.want == "") {
			t.Errorf("%s: got %q, %v", tt.name, got, refused)
		}
	}
	if _, refused := command.ReadAnnouncement([]byte{1, 2, 3}); refused == nil {
		t.Error("bytes that are no message")
	}
}

// FuzzAnnouncement takes whatever a peer may send; what is taken is in the directory, which stays whole.
func FuzzAnnouncement(f *testing.F) {
	f.Add([]byte(`{"adapter":"A","reset":true,"set":[["T","D",1732362000000,0,"hono-mqtt",1],["T","D",5,9,"",0]],"drop":[["T","F"]],"via":[["T","D","G"]]}`))
	f.Add([]byte(`{"adapter":"A","set":[["T","D",1,99999999999999,"x",0],["U","D",1,0,"x",0]],"drop":[["U","D"]]}`))
	f.Add([]byte(`{"set":[null,[],[[]],{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := amqp.Message{Data: [][]byte{data}}
		encoded, err := m.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = command.ReadAnnouncement(data)
		_, refused := command.ReadAnnouncement(encoded)
		d := command.NewDirectory(command.Options{Invoker: through(), Send: (&post{}).send})
		defer d.Close()
		other := d.Attach("B")
		announce(t, other, announcement{Set: [][6]any{row("D", 10, 0, 0)}})
		l := d.Attach("A")
		taken := l.Announce(data)
		if (refused == nil) != (taken == nil) {
			t.Fatalf("%v, but %v", refused, taken)
		}
		if wrong := d.Check(); wrong != "" {
			t.Fatal(wrong)
		}
		l.Leave()
		if wrong := d.Check(); wrong != "" || d.Len() != 1 {
			t.Fatal(wrong, d.Len())
		}
	})
}

// BenchmarkAnnounce applies what a router hears of 15,000 devices: 15 announcements.
func BenchmarkAnnounce(b *testing.B) {
	var messages [][]byte
	for i := range 15 {
		a := announcement{Adapter: "adapter/0123456789ab", Reset: i == 0}
		for j := range 1000 {
			a.Set = append(a.Set, [6]any{"tenant-0", fmt.Sprintf("device-%06d", i*1000+j), 1732362000000 + j, 0, "hono-mqtt", 0})
		}
		m := amqp.Message{Data: [][]byte{a.encode(b)}}
		encoded, err := m.Append(nil)
		if err != nil {
			b.Fatal(err)
		}
		messages = append(messages, encoded)
	}
	d := command.NewDirectory(command.Options{Invoker: through(), Send: (&post{}).send})
	defer d.Close()
	b.ReportAllocs()
	for b.Loop() {
		l := d.Attach("A")
		for _, m := range messages {
			if err := l.Take(m); err != nil {
				b.Fatal(err)
			}
		}
		if d.Len() != 15_000 {
			b.Fatal(d.Len())
		}
		b.StopTimer()
		l.Leave()
		b.StartTimer()
	}
}

// BenchmarkDirectory tells what an entry of 100,000 costs in memory, with the names of the
// device and of the tenant that an announcement brought.
func BenchmarkDirectory(b *testing.B) {
	const n = 100_000
	var before, after runtime.MemStats
	for b.Loop() {
		d := command.NewDirectory(command.Options{Invoker: through(), Send: (&post{}).send})
		l := d.Attach("adapter/0123456789ab")
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range n / 1000 {
			var a announcement
			for j := range 1000 {
				a.Set = append(a.Set, [6]any{fmt.Sprint("tenant-", i%10), fmt.Sprintf("device-%06d", i*1000+j), 1732362000000 + j, 0, "hono-mqtt", 0})
			}
			announce(b, l, a)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "B/entry")
		if d.Len() != n {
			b.Fatal(d.Len())
		}
		d.Close()
	}
}
