package command_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router/command"
)

// TestChoice shows which process a command to d goes to, where g1, g2 and g3 may act
// for it in that order.
func TestChoice(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  [][6]any
		via  [][3]any
		want string
	}{
		{"nobody", nil, nil, ""},
		{"somebody else", [][6]any{row("e", 1, 0, 1)}, nil, ""},
		{"the device", [][6]any{row("d", 1, 0, 0)}, nil, "A"},
		{"the device before its gateways", [][6]any{row("g1", 2, 0, 1), row("d", 1, 0, 0)}, [][3]any{{"T", "d", "g1"}}, "A"},
		{"a gateway", [][6]any{row("g2", 1, 0, 1)}, nil, "A via g2"},
		{"a gateway for itself only", [][6]any{row("g2", 1, 0, 0)}, nil, ""},
		{"the first of several", [][6]any{row("g3", 1, 0, 1), row("g2", 1, 0, 1)}, nil, "A via g2"},
		{"the last known", [][6]any{row("g3", 1, 0, 1), row("g2", 1, 0, 1)}, [][3]any{{"T", "d", "g3"}}, "A via g3"},
		{"the last word on it", [][6]any{row("g3", 1, 0, 1), row("g2", 1, 0, 1)}, [][3]any{{"T", "d", "g2"}, {"T", "d", "g3"}}, "A via g3"},
		{"the last known, of another device", [][6]any{row("g3", 1, 0, 1), row("g2", 1, 0, 1)}, [][3]any{{"T", "e", "g3"}}, "A via g2"},
		{"the last known, of another tenant", [][6]any{row("g3", 1, 0, 1), row("g2", 1, 0, 1)}, [][3]any{{"U", "d", "g3"}}, "A via g2"},
		{"the last known is not there", [][6]any{row("g2", 1, 0, 1)}, [][3]any{{"T", "d", "g3"}}, "A via g2"},
		{"the last known is there for itself only", [][6]any{row("g2", 1, 0, 1), row("g3", 1, 0, 0)}, [][3]any{{"T", "d", "g3"}}, "A via g2"},
		{"the last known may not act for it now", [][6]any{row("g4", 1, 0, 1), row("g1", 1, 0, 1)}, [][3]any{{"T", "d", "g4"}}, "A via g1"},
		{"expired", [][6]any{row("d", 1, 1000, 0)}, nil, ""},
		{"expired, its gateway not", [][6]any{row("d", 1, 1000, 0), row("g1", 1, 0, 1)}, nil, "A via g1"},
		{"a gateway that may not act for it", [][6]any{row("g4", 1, 0, 1)}, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDirectory(t, through("g1", "g2", "g3"), nil)
			announce(t, d.Attach("A"), announcement{Set: tt.set, Via: tt.via})
			if got := find(t, d, "d"); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestRouteSaysHowLongItLasts(t *testing.T) {
	d := newDirectory(t, through("g"), nil)
	until := time.Now().Add(time.Hour).UnixMilli()
	announce(t, d.Attach("A"), announcement{Set: [][6]any{{"T", "g", 7, until, "hono-amqp", 1}}})
	got, err := d.Find(t.Context(), "T", "d")
	want := command.Route{Device: "d", Gateway: "g", Instance: "A", Adapter: "hono-amqp", At: 7, Until: until}
	if err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

// TestLaterCounts shows whose entry counts of several, and that the others count
// again when it goes.
func TestLaterCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &post{}
		d := command.NewDirectory(command.Options{Invoker: through(), Send: p.send})
		defer d.Close()
		a, b, c := d.Attach("A"), d.Attach("B"), d.Attach("C")
		step := func(what, want string, told map[string][]string) {
			t.Helper()
			synctest.Wait()
			time.Sleep(time.Millisecond) // messages go one after the other
			if got := find(t, d, "d"); got != want {
				t.Errorf("%s: got %q, want %q", what, got, want)
			}
			for _, instance := range []string{"A", "B", "C"} {
				if diff := cmp.Diff(told[instance], p.taken(instance)); diff != "" {
					t.Errorf("%s: %s is told (-want +got):\n%s", what, instance, diff)
				}
			}
			if wrong := d.Check(); wrong != "" {
				t.Fatal(what, wrong)
			}
		}
		superseded := func(at int) []string { return []string{fmt.Sprintf(`{"superseded":[["T","d",%d]]}`, at)} }
		restored := func(at int) []string { return []string{fmt.Sprintf(`{"restored":[["T","d",%d]]}`, at)} }
		set := func(l command.Linked, at, until int64) {
			t.Helper()
			announce(t, l, announcement{Set: [][6]any{row("d", at, until, 0)}})
		}
		set(a, 10, 0)
		step("one", "A", nil)
		set(b, 20, 0)
		step("a later one", "B", map[string][]string{"A": superseded(10)})
		set(c, 15, 0)
		step("one in between", "B", map[string][]string{"C": superseded(15)})
		announce(t, b, announcement{Drop: [][2]any{{"T", "d"}}})
		step("the latest goes", "C", map[string][]string{"C": restored(15)})
		set(a, 12, 0)
		step("an earlier one, anew", "C", map[string][]string{"A": superseded(12)})
		set(a, 12, 0)
		step("the same again", "C", nil)
		set(a, 16, 0)
		step("the same device connects again", "A", map[string][]string{"C": superseded(15)})
		set(a, 9, 0)
		step("on one link the last word counts, whatever its time", "C", map[string][]string{"A": superseded(9), "C": restored(15)})
		c.Leave()
		step("a link goes", "A", map[string][]string{"A": restored(9)})
		set(b, 9, 0)
		step("of the same time the greater name", "B", map[string][]string{"A": superseded(9)})
		b.Leave()
		step("it goes", "A", map[string][]string{"A": restored(9)})

		b = d.Attach("B")
		set(b, 30, time.Now().Add(5*time.Second).UnixMilli())
		step("until a time", "B", map[string][]string{"A": superseded(9)})
		time.Sleep(4900 * time.Millisecond)
		step("that is not over", "B", nil)
		time.Sleep(200 * time.Millisecond)
		step("that is over", "A", map[string][]string{"A": restored(9)})
		set(b, 40, time.Now().Add(-time.Second).UnixMilli())
		step("from the past", "A", nil)

		again := d.Attach("A")
		announce(t, again, announcement{Reset: true, Set: [][6]any{row("d", 50, 0, 0)}})
		step("another connection of the same process", "A", nil)
		a.Leave()
		step("the older connection goes", "A", nil)
		announce(t, again, announcement{Reset: true})
		step("reset", "", nil)
		if err := d.SetForeign("F", command.Row{Tenant: "T", Device: "d", At: 1}); err != nil {
			t.Fatal(err)
		}
		step("a foreign one", "F", nil)
		set(again, 60, 0)
		step("a foreign one is not told", "A", nil)
		if d.DropForeign("F", "T", "d") {
			t.Error("an entry that does not count was dropped")
		}
		if err := d.SetForeign("F", command.Row{Tenant: "T", Device: "d", At: 70}); err != nil {
			t.Fatal(err)
		}
		step("a foreign one later", "F", map[string][]string{"A": superseded(60)})
		if !d.DropForeign("F", "T", "d") || d.DropForeign("F", "T", "d") || d.DropForeign("G", "T", "d") {
			t.Error("the entry that counts was not dropped, or twice")
		}
		step("it is dropped", "A", map[string][]string{"A": restored(60)})
	})
}

// TestToldAgain shows that a process without credit hears the last word when it has some.
func TestToldAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &post{state: amqp.StateReleased}
		d := command.NewDirectory(command.Options{Invoker: through(), Send: p.send})
		defer d.Close()
		a, b := d.Attach("A"), d.Attach("B")
		announce(t, a, announcement{Set: [][6]any{row("d", 1, 0, 0), row("e", 1, 0, 0)}})
		announce(t, b, announcement{Set: [][6]any{row("d", 2, 0, 0), row("e", 2, 0, 0)}})
		synctest.Wait()
		if n := len(p.taken("A")); n != 1 {
			t.Fatalf("%d messages, want 1", n)
		}
		announce(t, b, announcement{Drop: [][2]any{{"T", "d"}}})
		time.Sleep(command.ToldAgain)
		synctest.Wait()
		want := []string{`{"superseded":[["T","e",1]],"restored":[["T","d",1]]}`}
		if diff := cmp.Diff(want, p.taken("A")); diff != "" {
			t.Errorf("told again (-want +got):\n%s", diff)
		}
		p.answer(nil)
		time.Sleep(time.Minute)
		if diff := cmp.Diff(want, p.taken("A")); diff != "" {
			t.Errorf("told at last (-want +got):\n%s", diff)
		}
	})
}

// TestToldInParts shows that messages are of a bounded size.
func TestToldInParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &post{}
		d := command.NewDirectory(command.Options{Invoker: through(), Send: p.send})
		defer d.Close()
		var first, second announcement
		for i := range 1000 {
			first.Set = append(first.Set, row(fmt.Sprint("d", i), 1, 0, 0))
			second.Set = append(second.Set, row(fmt.Sprint("d", i), 2, 0, 0))
		}
		announce(t, d.Attach("A"), first)
		announce(t, d.Attach("B"), second)
		time.Sleep(time.Second)
		if n := len(p.taken("A")); n < 5 || n > 6 {
			t.Errorf("%d messages for 1000 rows, want 5", n)
		}
	})
}

func TestList(t *testing.T) {
	d := newDirectory(t, through(), nil)
	a := d.Attach("A")
	announce(t, a, announcement{Set: [][6]any{row("c", 1, 0, 0), row("a", 1, 0, 1), row("b", 1, 0, 0), row("x", 1, 1000, 0), {"U", "z", 1, 0, "", 0}}})
	announce(t, d.Attach("B"), announcement{Set: [][6]any{row("b", 2, 0, 0)}})
	var got []string
	for after, more := iot.DeviceID(""), true; more; {
		var page []command.Entry
		page, more = d.List("T", after, 2)
		for _, e := range page {
			got = append(got, fmt.Sprint(e.Device, e.Instance, e.At, e.All))
			after = e.Device
		}
	}
	if want := []string{"aA1 true", "bB2 false", "cA1 false"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if list, more := d.List("nobody", "", 2); len(list) > 0 || more {
		t.Error("a tenant without entries has some")
	}
}

// TestLinkWithManyDevicesGoes shows that all entries of a link go with it, though others
// have their turn in between.
func TestLinkWithManyDevicesGoes(t *testing.T) {
	d := newDirectory(t, through(), nil)
	l := d.Attach("A")
	for i := range 12 {
		var a announcement
		for j := range 1000 {
			a.Set = append(a.Set, row(fmt.Sprint("d", i*1000+j), 1, 0, 0))
		}
		announce(t, l, a)
	}
	l.Leave()
	if wrong := d.Check(); wrong != "" || d.Len() != 0 {
		t.Error(wrong, d.Len())
	}
}

func TestForeignAreBounded(t *testing.T) {
	d := newDirectory(t, through(), nil)
	rows := make([]command.Row, command.MaxForeign+1)
	for i := range rows {
		rows[i] = command.Row{Tenant: "T", Device: iot.DeviceID(fmt.Sprint(i))}
	}
	if err := d.SetForeign("F", rows...); err == nil {
		t.Fatal("there is no limit")
	}
	if err := d.SetForeign("G", rows[0]); err == nil {
		t.Error("another has room")
	}
	if err := d.SetForeign("F", rows[1]); err != nil {
		t.Errorf("a row that replaces one: %v", err)
	}
	if n := d.ForgetForeign("F"); n != command.MaxForeign || d.Len() != 0 || len(d.Foreigners()) != 0 {
		t.Errorf("%d rows forgotten, %d left", n, d.Len())
	}
	if err := d.SetForeign("G", rows[0]); err != nil {
		t.Error(err)
	}
}

// TestForeignOfOneTenantLeaveRoom: the adapter of one tenant keeps nobody else out.
func TestForeignOfOneTenantLeaveRoom(t *testing.T) {
	d := newDirectory(t, through(), nil)
	fill := func(tenant iot.TenantID) (n int) {
		for ; d.SetForeign("F", command.Row{Tenant: tenant, Device: iot.DeviceID(fmt.Sprint(n))}) == nil; n++ {
		}
		return n
	}
	if n := fill("T"); n != command.MaxForeign {
		t.Errorf("alone a tenant has %d, want %d", n, command.MaxForeign)
	}
	for _, tenant := range []iot.TenantID{"U", "V", "W"} {
		if n := fill(tenant); n < 100 {
			t.Errorf("%s has room for %d", tenant, n)
		}
	}
	if wrong := d.Check(); wrong != "" {
		t.Error(wrong)
	}
	if d.ForgetForeign("F"); d.Check() != "" || d.Len() != 0 {
		t.Error(d.Check(), d.Len())
	}
}

func TestLastGatewaysAreBounded(t *testing.T) {
	d := newDirectory(t, through(), nil)
	for i := range 2 * command.MaxGateways {
		d.SetLastGateway("T", iot.DeviceID(fmt.Sprint(i)), "g")
	}
	if n := d.Gateways(); n > command.MaxGateways+1 || n < command.MaxGateways/2 {
		t.Errorf("%d are remembered, want at most %d", n, command.MaxGateways)
	}
	d.SetLastGateway("T", "d", "g")
	n := d.Gateways()
	d.SetLastGateway("T", "d", "d")
	if d.Gateways() != n-1 {
		t.Error("a device that connects itself has a gateway")
	}
}

// TestAgainstModel announces at random and compares whose entry counts with what a
// simple model says.
func TestAgainstModel(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) { againstModel(t, rand.New(rand.NewPCG(seed, 1))) })
	}
}

type modelRow struct {
	at, until int64
	order     int
}

func againstModel(t *testing.T, r *rand.Rand) {
	d := command.NewDirectory(command.Options{Invoker: through(), Send: (&post{}).send})
	defer d.Close()
	const links, devices = 5, 4
	var linked [links]command.Linked
	var rows [links]map[string]modelRow
	name := func(i int) string { return string(rune('A' + i%4)) } // A has two links
	for i := range linked {
		linked[i], rows[i] = d.Attach(name(i)), map[string]modelRow{}
	}
	for step := range 600 {
		i, device := r.IntN(links), fmt.Sprint("d", r.IntN(devices))
		switch r.IntN(10) {
		case 0:
			linked[i].Leave()
			linked[i], rows[i] = d.Attach(name(i)), map[string]modelRow{}
		case 1:
			announce(t, linked[i], announcement{Reset: true})
			clear(rows[i])
		case 2, 3:
			announce(t, linked[i], announcement{Drop: [][2]any{{"T", device}}})
			delete(rows[i], device)
		case 4:
			time.Sleep(time.Duration(r.IntN(300)) * time.Millisecond)
		default:
			m := modelRow{at: int64(r.IntN(20)), order: step}
			if r.IntN(2) == 0 {
				m.until = time.Now().UnixMilli() + int64(r.IntN(2000)) - 100
			}
			announce(t, linked[i], announcement{Set: [][6]any{row(device, m.at, m.until, 0)}})
			rows[i][device] = m
		}
		now := time.Now().UnixMilli()
		for n := range devices {
			device, best, which := fmt.Sprint("d", n), modelRow{}, -1
			for i := range rows {
				m, ok := rows[i][device]
				if !ok || m.until != 0 && m.until <= now {
					continue
				}
				if which < 0 || m.at > best.at || m.at == best.at && (name(i) > name(which) || name(i) == name(which) && m.order > best.order) {
					best, which = m, i
				}
			}
			want := ""
			if which >= 0 {
				want = name(which)
			}
			if got := find(t, d, iot.DeviceID(device)); got != want {
				t.Fatalf("step %d: %s: got %q, want %q", step, device, got, want)
			}
		}
		if wrong := d.Check(); wrong != "" {
			t.Fatalf("step %d: %s", step, wrong)
		}
	}
}
