package auth_test

import (
	"strings"
	"testing"

	"github.com/sluice-iot/sluice/internal/auth"
)

func compile(t testing.TB, list ...auth.Authority) *auth.Authorities {
	t.Helper()
	a, err := auth.Compile(list)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestMay(t *testing.T) {
	for name, c := range map[string]struct {
		pattern string
		yes, no []string
	}{
		"exact":            {"telemetry/DEMO", []string{"telemetry/DEMO", "telemetry/DEMO/d1", "telemetry/DEMO/d1/x"}, []string{"telemetry", "telemetry/DEMO2", "telemetry/DEM", "event/DEMO", "telemetry//DEMO", ""}},
		"star":             {"telemetry/*", []string{"telemetry/A", "telemetry/A/d"}, []string{"telemetry", "telemetry/", "event/A"}},
		"endpoint":         {"tenant", []string{"tenant", "tenant/R"}, []string{"tenants", "a/tenant"}},
		"everything":       {"*", []string{"telemetry", "telemetry/A", "a/b/c/d"}, []string{""}},
		"star in between":  {"event/*/d1", []string{"event/A/d1", "event/B/d1/x"}, []string{"event/A", "event/A/d2", "event/A/B/d1"}},
		"three":            {"command_internal/a/b", []string{"command_internal/a/b"}, []string{"command_internal/a"}},
		"star leads":       {"*/DEMO", []string{"telemetry/DEMO", "event/DEMO/x"}, []string{"telemetry/A", "DEMO"}},
		"prefix is no way": {"telemetry/D", nil, []string{"telemetry/DEMO"}},
	} {
		t.Run(name, func(t *testing.T) {
			a := compile(t, auth.Authority{Address: c.pattern, May: auth.Read})
			for _, address := range c.yes {
				if !a.May(address, auth.Read) {
					t.Errorf("%s must cover %q", c.pattern, address)
				}
				if a.May(address, auth.Write) || a.May(address, auth.Read|auth.Write) || a.May(address, 0) {
					t.Errorf("%s covers more than reading %q", c.pattern, address)
				}
			}
			for _, address := range c.no {
				if a.May(address, auth.Read) {
					t.Errorf("%s must not cover %q", c.pattern, address)
				}
			}
		})
	}
}

// The look-up goes on from a more particular authority that does not allow the
// activity to a more general one that does.
func TestMayLooksFurther(t *testing.T) {
	a := compile(t,
		auth.Authority{Address: "telemetry/A", May: auth.Read},
		auth.Authority{Address: "telemetry/*", May: auth.Write},
		auth.Authority{Address: "event", May: auth.Read},
		auth.Authority{Address: "event/A/d", May: auth.Write})
	for _, c := range []struct {
		address string
		what    auth.Activity
		want    bool
	}{
		{"telemetry/A", auth.Write, true}, {"telemetry/A", auth.Read, true}, {"telemetry/B", auth.Read, false},
		{"event/A/d", auth.Read, true}, {"event/A/d", auth.Write, true}, {"event/A", auth.Write, false},
	} {
		if got := a.May(c.address, c.what); got != c.want {
			t.Errorf("%s %s: got %v", c.what, c.address, got)
		}
	}
}

func TestMayOperate(t *testing.T) {
	for _, c := range []struct {
		operation, address, op string
		want                   bool
	}{
		{"credentials/DEMO:get", "credentials/DEMO", "get", true},
		{"credentials/DEMO:get", "credentials/DEMO", "put", false},
		{"credentials/DEMO:*", "credentials/DEMO", "put", true},
		{"credentials/*:*", "credentials/A", "get", true},
		{"credentials/*:*", "credentials", "get", false},
		{"credentials:get", "credentials/A", "get", true},
		{"tenant/*:*", "tenant/A", "get", true},
		{"*:get", "tenant/A", "get", true},
		{"*:get", "tenant/A", "put", false},
		{"*:*", "tenant", "put", true},
		{"*:*", "tenant", "", false},
		{"*:*", "", "get", false},
	} {
		a := compile(t, auth.Authority{Operation: c.operation, May: auth.Execute})
		if got := a.MayOperate(c.address, c.op); got != c.want {
			t.Errorf("%s for %s at %s: got %v", c.operation, c.op, c.address, got)
		}
		if a.May(c.address, auth.Read) || a.May(c.address, auth.Execute) {
			t.Errorf("%s allows more", c.operation)
		}
	}
}

func TestCompileErrors(t *testing.T) {
	for _, a := range []auth.Authority{
		{Address: ""}, {Address: "a//b"}, {Address: "/a"}, {Address: "a/"}, {Address: "a/b*"},
		{Operation: "get"}, {Operation: ":get"}, {Operation: "a:"}, {Operation: "a/*b:get"}, {Address: "a", Operation: "a:b"},
	} {
		if _, err := auth.Compile([]auth.Authority{a}); err == nil {
			t.Errorf("%+v: want an error", a)
		}
	}
}

func TestActivity(t *testing.T) {
	if got := (auth.Read | auth.Write).String(); got != "read+write" {
		t.Errorf("got %s", got)
	}
	for _, w := range []string{"READ", "write", "Execute"} {
		if a, err := auth.ParseActivity(w); err != nil || a.String() != strings.ToLower(w) {
			t.Errorf("%s: %v, %v", w, a, err)
		}
	}
	if _, err := auth.ParseActivity("R"); err == nil {
		t.Error("want an error")
	}
}

func TestMayAllocatesNothing(t *testing.T) {
	a := many(t)
	if n := testing.AllocsPerRun(100, func() { a.May("telemetry/tenant-500/device-1", auth.Read); a.MayOperate("credentials/x", "get") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func many(t testing.TB) *auth.Authorities {
	list := []auth.Authority{{Address: "*/shared", May: auth.Read}, {Operation: "credentials/*:*"}}
	for _, c := range "0123456789" {
		for _, d := range "0123456789" {
			list = append(list, auth.Authority{Address: "telemetry/tenant-" + string(c) + string(d) + "0", May: auth.Read})
		}
	}
	return compile(t, list...)
}

func BenchmarkMay(b *testing.B) {
	a := many(b)
	for name, address := range map[string]string{"allowed": "telemetry/tenant-500/device-1", "denied": "event/tenant-500/device-1"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				a.May(address, auth.Read)
			}
		})
	}
}

func FuzzMay(f *testing.F) {
	f.Add("telemetry/*", "telemetry/A/b")
	f.Add("*/a/*", "x//y")
	f.Fuzz(func(t *testing.T, pattern, address string) {
		a, err := auth.Compile([]auth.Authority{{Address: pattern, May: auth.Read}})
		if err != nil {
			return
		}
		if got, want := a.May(address, auth.Read), covers(pattern, address); got != want {
			t.Errorf("%q covers %q: got %v", pattern, address, got)
		}
	})
}

// covers says the same as the look-up, in the plainest way.
func covers(pattern, address string) bool {
	p, s := strings.Split(pattern, "/"), strings.Split(address, "/")
	if address == "" || len(p) > len(s) {
		return false
	}
	for i := range p {
		if p[i] != s[i] && (p[i] != "*" || s[i] == "") {
			return false
		}
	}
	return true
}
