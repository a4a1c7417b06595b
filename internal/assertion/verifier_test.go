package assertion_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sluice-iot/sluice/internal/assertion"
	"github.com/sluice-iot/sluice/internal/iot"
)

func TestVerifyRefuses(t *testing.T) {
	c := newClock()
	s := newSigner(t, &memoryKeys{}, c, "")
	good := string(sign(t, s, assertion.Subject{Tenant: "T", Device: "D"}))
	stranger := string(sign(t, newSigner(t, &memoryKeys{}, c, ""), assertion.Subject{Tenant: "T", Device: "D"}))
	hs, _ := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": "D"}).SignedString([]byte("secret"))
	none, _ := jwt.NewWithClaims(jwt.SigningMethodNone, jwt.MapClaims{"sub": "D"}).SignedString(jwt.UnsafeAllowNoneSignatureType)
	parts := strings.Split(good, ".")
	flipped := "A"
	if parts[2][0] == 'A' {
		flipped = "B"
	}
	for name, tok := range map[string]string{
		"empty":             "",
		"two parts":         parts[0] + "." + parts[1],
		"changed signature": parts[0] + "." + parts[1] + "." + flipped + parts[2][1:],
		"other claims":      parts[0] + "." + strings.Split(stranger, ".")[1] + "." + parts[2],
		"unknown key":       stranger,
		"HMAC":              hs,
		"none":              none,
		"too long":          good + strings.Repeat("x", assertion.MaxTokenBytes),
	} {
		t.Run(name, func(t *testing.T) {
			v := newVerifier(t, assertion.VerifierConfig{Keys: s.KeySource()})
			if _, err := v.Verify([]byte(tok), c.Now()); !errors.Is(err, iot.ErrForbidden) {
				t.Errorf("got %v, want ErrForbidden", err)
			}
		})
	}
	t.Run("every prefix", func(t *testing.T) {
		v := newVerifier(t, assertion.VerifierConfig{Keys: s.KeySource()})
		for n := range good {
			if _, err := v.Verify([]byte(good[:n]), c.Now()); err == nil {
				t.Fatalf("the first %d bytes verify", n)
			}
		}
	})
	t.Run("other issuer", func(t *testing.T) {
		v := assertion.NewVerifier(assertion.VerifierConfig{Issuer: "//other", Keys: s.KeySource()})
		defer v.Close()
		if _, err := v.Verify([]byte(good), c.Now()); !errors.Is(err, iot.ErrForbidden) || !strings.Contains(err.Error(), "issuer") {
			t.Errorf("got %v", err)
		}
	})
}

func TestLifeTime(t *testing.T) {
	c := newClock()
	s := newSigner(t, &memoryKeys{}, c, "")
	tok := sign(t, s, assertion.Subject{Tenant: "T", Device: "D"})
	v := newVerifier(t, assertion.VerifierConfig{Keys: s.KeySource()})
	start := c.Now()
	for _, tt := range []struct {
		at    time.Duration
		limit time.Duration
		ok    bool
	}{
		{0, 0, true}, {-5 * time.Second, 0, true}, {-time.Minute, 0, false},
		{300 * time.Second, 300 * time.Second, true}, {311 * time.Second, 300 * time.Second, false}, {311 * time.Second, 0, true},
		{24 * time.Hour, 0, true}, {24*time.Hour + 11*time.Second, 0, false},
	} {
		v.LimitAge(tt.limit)
		if _, err := v.Verify(tok, start.Add(tt.at)); (err == nil) != tt.ok {
			t.Errorf("at %s with limit %s: %v", tt.at, tt.limit, err)
		}
	}
}

func TestVoid(t *testing.T) {
	c := newClock()
	s := newSigner(t, &memoryKeys{}, c, "")
	byDevice := sign(t, s, assertion.Subject{Tenant: "T", Device: "D", Rev: "05"})
	byGateway := sign(t, s, assertion.Subject{Tenant: "T", Device: "D2", Gateway: "G", Rev: "05"})
	other := sign(t, s, assertion.Subject{Tenant: "U", Device: "D", Rev: "05"})
	newer := sign(t, s, assertion.Subject{Tenant: "T", Device: "D", Rev: "06"})
	for _, tt := range []struct {
		name   string
		tenant iot.TenantID
		device iot.DeviceID
		rev    string
		dead   []int // of byDevice, byGateway, other, newer
	}{
		{"own device", "T", "D", "06", []int{0}},
		{"same position", "T", "D", "05", nil},
		{"gateway", "T", "G", "06", []int{1}},
		{"device behind a gateway", "T", "D2", "06", []int{1}},
		{"whole tenant", "T", "", "06", []int{0, 1}},
		{"whole tenant, later", "T", "", "07", []int{0, 1, 3}},
		{"unknown tenant", "X", "", "99", nil},
	} {
		for _, seen := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, seen before %v", tt.name, seen), func(t *testing.T) {
				v := newVerifier(t, assertion.VerifierConfig{Keys: s.KeySource()})
				tokens := [][]byte{byDevice, byGateway, other, newer}
				if seen {
					for _, tok := range tokens {
						if _, err := v.Verify(tok, c.Now()); err != nil {
							t.Fatal(err)
						}
					}
				}
				v.Void(tt.tenant, tt.device, tt.rev, c.Now())
				for i, tok := range tokens {
					dead := false
					for _, d := range tt.dead {
						dead = dead || d == i
					}
					for range 2 { // the second look must decide the same
						if _, err := v.Verify(tok, c.Now()); (err != nil) != dead {
							t.Errorf("token %d: %v, want void %v", i, err, dead)
						}
					}
				}
			})
		}
	}
}

func TestVoidsAreBoundedAndForgetNothing(t *testing.T) {
	c := newClock()
	s := newSigner(t, &memoryKeys{}, c, "")
	v := newVerifier(t, assertion.VerifierConfig{Keys: s.KeySource(), MaxVoids: 10})
	for i := range 25 {
		v.Void("T", iot.DeviceID(fmt.Sprintf("d%d", i)), "05", c.Now())
	}
	for i := range 25 {
		tok := sign(t, s, assertion.Subject{Tenant: "T", Device: iot.DeviceID(fmt.Sprintf("d%d", i)), Rev: "04"})
		if _, err := v.Verify(tok, c.Now()); err == nil {
			t.Errorf("device %d survived", i)
		}
	}
	v.Void("T", "d1", "03", c.Now()) // an older fact that comes late lowers nothing
	if _, err := v.Verify(sign(t, s, assertion.Subject{Tenant: "T", Device: "d1", Rev: "04"}), c.Now()); err == nil {
		t.Error("an older fact revived a token")
	}
	// Once no token of that time lives any more the marks are forgotten.
	c.add(26 * time.Hour)
	v.Void("U", "d", "01", c.Now())
	if _, err := v.Verify(sign(t, s, assertion.Subject{Tenant: "T", Device: "d1", Rev: "04"}), c.Now()); err != nil {
		t.Errorf("a mark is remembered for ever: %v", err)
	}
}

func TestTheCacheIsBounded(t *testing.T) {
	c := newClock()
	s := newSigner(t, &memoryKeys{}, c, "")
	v := newVerifier(t, assertion.VerifierConfig{Keys: s.KeySource(), CacheSize: 32})
	for i := range 200 {
		if _, err := v.Verify(sign(t, s, assertion.Subject{Tenant: "T", Device: iot.DeviceID(fmt.Sprint(i))}), c.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if n := v.CachedTokens(); n > 32 || n < 16 {
		t.Errorf("%d tokens remembered, want at most 32", n)
	}
}

func TestUnknownKeysAreAskedForRarely(t *testing.T) {
	c, store := newClock(), &memoryKeys{}
	s := newSigner(t, store, c, "")
	var asked atomic.Int32
	source := s.KeySource()
	v := newVerifier(t, assertion.VerifierConfig{Keys: func(ctx context.Context) (assertion.KeySet, time.Duration, error) {
		asked.Add(1)
		return source(ctx)
	}})
	stranger := sign(t, newSigner(t, &memoryKeys{}, c, ""), assertion.Subject{Tenant: "T", Device: "D"})
	for range 50 {
		if _, err := v.Verify(stranger, c.Now()); !errors.Is(err, iot.ErrForbidden) {
			t.Fatal(err)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times, want once", n)
	}
	c.add(6 * time.Second)
	if _, err := v.Verify(stranger, c.Now()); !errors.Is(err, iot.ErrForbidden) {
		t.Fatal(err)
	}
	if n := asked.Load(); n != 2 {
		t.Errorf("asked %d times after the pause, want twice", n)
	}
}

func TestKeysThatCannotBeHad(t *testing.T) {
	c := newClock()
	s := newSigner(t, &memoryKeys{}, c, "")
	tok, late := sign(t, s, assertion.Subject{Tenant: "T", Device: "D"}), sign(t, s, assertion.Subject{Tenant: "T", Device: "E"})
	var fail atomic.Bool
	fail.Store(true)
	source := s.KeySource()
	v := newVerifier(t, assertion.VerifierConfig{Keys: func(ctx context.Context) (assertion.KeySet, time.Duration, error) {
		if fail.Load() {
			return assertion.KeySet{}, 0, iot.ErrUnavailable
		}
		set, _, err := source(ctx)
		return set, time.Hour, err
	}})
	if _, err := v.Verify(tok, c.Now()); !errors.Is(err, iot.ErrUnavailable) {
		t.Fatalf("got %v, want ErrUnavailable", err)
	}
	fail.Store(false)
	c.add(2 * time.Second)
	if _, err := v.Verify(tok, c.Now()); err != nil {
		t.Fatalf("after the failure: %v", err)
	}
	fail.Store(true)
	c.add(90 * time.Minute) // beyond the age of the keys, within the grace
	if _, err := v.Verify(late, c.Now()); err != nil {
		t.Errorf("within the grace: %v", err)
	}
	c.add(time.Hour)
	if _, err := v.Verify(sign(t, s, assertion.Subject{Tenant: "T", Device: "F"}), c.Now()); !errors.Is(err, iot.ErrUnavailable) {
		t.Errorf("beyond the grace: %v, want ErrUnavailable", err)
	}
}

func TestASlowKeySourceDelaysBoundedly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := assertion.NewVerifier(assertion.VerifierConfig{Issuer: issuer, Keys: func(ctx context.Context) (assertion.KeySet, time.Duration, error) {
			<-ctx.Done()
			return assertion.KeySet{}, 0, ctx.Err()
		}})
		s := newSigner(t, &memoryKeys{}, newClock(), "")
		tok := sign(t, s, assertion.Subject{Tenant: "T", Device: "D"})
		start := time.Now()
		refused := func(after time.Duration) {
			t.Helper()
			if _, err := v.Verify(tok, time.Now()); !errors.Is(err, iot.ErrUnavailable) {
				t.Errorf("got %v, want ErrUnavailable", err)
			}
			if d := time.Since(start); d != after {
				t.Errorf("refused after %s, want %s", d, after)
			}
		}
		refused(5 * time.Second)
		refused(5 * time.Second) // all wait for one question, none for its own time
		v.Close()
		if d := time.Since(start); d != 5*time.Second {
			t.Errorf("closing took until %s", d)
		}
	})
}

// Where functions start with the first question, the first message waits for them.
func TestKeysOfAFunctionThatStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSigner(t, &memoryKeys{}, newClock(), "")
		source := s.KeySource()
		v := assertion.NewVerifier(assertion.VerifierConfig{Issuer: issuer, Keys: func(ctx context.Context) (assertion.KeySet, time.Duration, error) {
			time.Sleep(3 * time.Second)
			return source(ctx)
		}})
		defer v.Close()
		if _, err := v.Verify(sign(t, s, assertion.Subject{Tenant: "T", Device: "D"}), newClock().Now()); err != nil {
			t.Error(err)
		}
	})
}

func TestACachedLookUpAllocatesNothing(t *testing.T) {
	c := newClock()
	s := newSigner(t, &memoryKeys{}, c, "")
	v := newVerifier(t, assertion.VerifierConfig{Keys: s.KeySource()})
	tok := sign(t, s, assertion.Subject{Tenant: "T", Device: "D"})
	now := c.Now()
	if n := testing.AllocsPerRun(100, func() {
		if _, err := v.Verify(tok, now); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func BenchmarkVerify(b *testing.B) {
	c := newClock()
	s := newSigner(b, &memoryKeys{}, c, "")
	v := newVerifier(b, assertion.VerifierConfig{Keys: s.KeySource(), CacheSize: 20_000})
	now := c.Now()
	for _, n := range []int{1, 10_000} {
		tokens := make([][]byte, n)
		for i := range tokens {
			tokens[i] = sign(b, s, assertion.Subject{Tenant: "DEMO", Device: iot.DeviceID(fmt.Sprint(i)), Rev: "00000000000000000042"})
			if _, err := v.Verify(tokens[i], now); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(fmt.Sprintf("cached/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if _, err := v.Verify(tokens[i%n], now); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
	b.Run("first", func(b *testing.B) {
		b.ReportAllocs()
		tok := sign(b, s, assertion.Subject{Tenant: "DEMO", Device: "first"})
		for b.Loop() {
			w := assertion.NewVerifier(assertion.VerifierConfig{Issuer: issuer, Keys: s.KeySource()})
			if _, err := w.Verify(tok, now); err != nil {
				b.Fatal(err)
			}
			w.Close()
		}
	})
}

func TestNextUse(t *testing.T) {
	c := newClock()
	v := newVerifier(t, assertion.VerifierConfig{Keys: newSigner(t, &memoryKeys{}, c, "").KeySource()})
	first, same := v.NextUse(), v.NextUse()
	if first != same {
		t.Error("two who wait have two channels")
	}
	select {
	case <-first:
		t.Fatal("used before Verify")
	default:
	}
	v.Verify([]byte("x"), c.Now()) // refused, but used
	<-first
	second := v.NextUse()
	select {
	case <-second:
		t.Error("closed by the use before")
	default:
	}
}
