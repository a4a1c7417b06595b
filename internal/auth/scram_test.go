package auth_test

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/iot"
)

// The example of RFC 7677, section 3: user with password pencil.
const (
	rfcSecret = "{scram-sha-256}4096:W22ZaJ0SNY7soEsUEjb6gQ==:WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
	rfcNonce  = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
	rfcFirst  = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
	rfcAnswer = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
	rfcFinal  = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
	rfcLast   = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
)

func rfcDirectory(t testing.TB) *auth.Directory {
	return open(t, `
identities:
  - {name: user, secret: "`+rfcSecret+`", authorities: []}
  - {name: by-certificate, authorities: []}
`, auth.Options{})
}

func TestScramVector(t *testing.T) {
	x := auth.WithNonce(rfcDirectory(t).Begin(auth.ScramSHA256, nil), rfcNonce)
	for _, step := range []struct{ say, want string }{{rfcFirst, rfcAnswer}, {rfcFinal, rfcLast}} {
		got, id, err := x.Step(t.Context(), []byte(step.say))
		if string(got) != step.want || id != nil || err != nil {
			t.Fatalf("to %s: got %q, %v, %v, want %q", step.say, got, id, err, step.want)
		}
	}
	challenge, id, err := x.Step(t.Context(), []byte{})
	if err != nil || challenge != nil || id == nil || id.Name != "user" {
		t.Errorf("at last: %q, %v, %v", challenge, id, err)
	}
}

func TestScramRefused(t *testing.T) {
	d := rfcDirectory(t)
	replace := strings.NewReplacer
	for name, c := range map[string]struct {
		says []string
		text string
	}{
		"channel binding":              {[]string{"p=tls-unique,,n=user,r=x"}, "not offered"},
		"no flag":                      {[]string{"q,,n=user,r=x"}, "neither n nor y"},
		"odd authorization":            {[]string{"n,b=x,n=user,r=x"}, "authorization identity"},
		"mandatory extension":          {[]string{"n,,m=x,n=user,r=x"}, "expected n=NAME"},
		"no name":                      {[]string{"n,,n=,r=x"}, "name is empty"},
		"name with a stray =":          {[]string{"n,,n=u=x,r=x"}, "neither =2C"},
		"name with a control":          {[]string{"n,,n=u\x7f,r=x"}, "control"},
		"name with a C1 control":       {[]string{"n,,n=u\u0085,r=x"}, "control"},
		"not UTF-8":                    {[]string{"n,,n=u\xff,r=x"}, "malformed"},
		"no nonce":                     {[]string{"n,,n=user,r="}, "expected n=NAME"},
		"nonce with a blank":           {[]string{"n,,n=user,r=a b"}, "expected n=NAME"},
		"empty":                        {[]string{""}, "malformed"},
		"long":                         {[]string{strings.Repeat("x", 5000)}, "at most 4096"},
		"wrong proof":                  {[]string{rfcFirst, replace("dHzb", "eHzb").Replace(rfcFinal)}, "wrong name or secret"},
		"short proof":                  {[]string{rfcFirst, "c=biws,r=x,p=AAAA"}, "malformed last"},
		"no proof":                     {[]string{rfcFirst, "c=biws,r=x"}, "malformed last"},
		"no header":                    {[]string{rfcFirst, replace("c=biws,", "").Replace(rfcFinal)}, "malformed last"},
		"other header":                 {[]string{rfcFirst, replace("biws", "eSws").Replace(rfcFinal)}, "not that of this dialogue"},
		"the client's nonce only":      {[]string{rfcFirst, replace(rfcNonce, "").Replace(rfcFinal)}, "not that of this dialogue"},
		"other nonce":                  {[]string{rfcFirst, replace("k0", "k1").Replace(rfcFinal)}, "not that of this dialogue"},
		"more in the end":              {[]string{rfcFirst, rfcFinal, "x"}, "expected none"},
		"extension that is not signed": {[]string{rfcFirst, replace(",p=", ",x=1,p=").Replace(rfcFinal)}, "wrong name or secret"},
	} {
		t.Run(name, func(t *testing.T) {
			x := auth.WithNonce(d.Begin(auth.ScramSHA256, nil), rfcNonce)
			for i, say := range c.says {
				_, id, err := x.Step(t.Context(), []byte(say))
				if i < len(c.says)-1 {
					if err != nil {
						t.Fatal(err)
					}
					continue
				}
				if !errors.Is(err, iot.ErrUnauthenticated) || !strings.Contains(err.Error(), c.text) || id != nil {
					t.Errorf("got %v, %v, want %q", id, err, c.text)
				}
			}
		})
	}
}

// scramLogin is a client. It returns the server's first message too.
func scramLogin(t testing.TB, x auth.Exchange, gs2, name, password string) (first string, id *auth.Identity, err error) {
	t.Helper()
	bare := "n=" + strings.NewReplacer("=", "=3D", ",", "=2C").Replace(name) + ",r=cnonce"
	challenge, _, err := x.Step(t.Context(), []byte(gs2+bare))
	if err != nil {
		return "", nil, err
	}
	first = string(challenge)
	parts := strings.Split(first, ",")
	salt, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(parts[1], "s="))
	if err != nil {
		t.Fatal(err)
	}
	var iterations int
	if _, err := fmt.Sscanf(parts[2], "i=%d", &iterations); err != nil {
		t.Fatal(err)
	}
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	if err != nil {
		t.Fatal(err)
	}
	without := "c=" + base64.StdEncoding.EncodeToString([]byte(gs2)) + "," + parts[0]
	clientKey := sign(salted, "Client Key")
	stored := sha256.Sum256(clientKey)
	signature := sign(stored[:], bare+","+first+","+without)
	for i := range clientKey {
		clientKey[i] ^= signature[i]
	}
	challenge, _, err = x.Step(t.Context(), []byte(without+",p="+base64.StdEncoding.EncodeToString(clientKey)))
	if err != nil {
		return first, nil, err
	}
	want := "v=" + base64.StdEncoding.EncodeToString(sign(sign(salted, "Server Key"), bare+","+first+","+without))
	if string(challenge) != want {
		t.Errorf("the server proves itself by %s, want %s", challenge, want)
	}
	_, id, err = x.Step(t.Context(), []byte{})
	return first, id, err
}

func sign(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func TestScram(t *testing.T) {
	d := open(t, sample(t)+`  - {name: "a=b,c", secret: "`+scramOf(t, "s-odd")+`", scopes: []}
`, auth.Options{AllowPlain: true})
	for name, c := range map[string]struct{ gs2, name, password, want string }{
		"right":                    {"n,,", "demo-app@DEMO", "s-scram", "demo-app@DEMO"},
		"it could bind a channel":  {"y,,", "demo-app@DEMO", "s-scram", "demo-app@DEMO"},
		"to act for others is not": {"n,a=hashed,", "demo-app@DEMO", "s-scram", "demo-app@DEMO"},
		"wrong":                    {"n,,", "demo-app@DEMO", "s-scrom", ""},
		"unknown":                  {"n,,", "nobody", "s-scram", ""},
		"bcrypt":                   {"n,,", "hashed", "s-bcrypt", ""},
		"plain":                    {"n,,", "clear", "s-plain", ""},
		"certificate":              {"n,,", "by-certificate", "x", ""},
		"operator":                 {"n,,", "one", "s-one", ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, id, err := scramLogin(t, d.Begin(auth.ScramSHA256, nil), c.gs2, c.name, c.password)
			if c.want == "" {
				if !errors.Is(err, iot.ErrUnauthenticated) || id != nil {
					t.Errorf("got %v, %v", id, err)
				}
				return
			}
			if err != nil || id.Name != c.want {
				t.Errorf("got %v, %v", id, err)
			}
		})
	}
}

func TestScramNamesAreUnescaped(t *testing.T) {
	d := open(t, `identities: [{name: "a=b,c=2C", secret: "`+scramOf(t, "s-odd")+`", authorities: []}]`, auth.Options{})
	if _, id, err := scramLogin(t, d.Begin(auth.ScramSHA256, nil), "n,,", "a=b,c=2C", "s-odd"); err != nil || id.Name != "a=b,c=2C" {
		t.Errorf("got %v, %v", id, err)
	}
}

// A client that sends nothing at first is asked.
func TestScramWithoutInitialResponse(t *testing.T) {
	x := rfcDirectory(t).Begin(auth.ScramSHA256, nil)
	challenge, id, err := x.Step(t.Context(), nil)
	if challenge == nil || len(challenge) > 0 || id != nil || err != nil {
		t.Fatalf("got %q, %v, %v", challenge, id, err)
	}
	if challenge, _, err := x.Step(t.Context(), []byte(rfcFirst)); err != nil || len(challenge) == 0 {
		t.Errorf("got %q, %v", challenge, err)
	}
}

// What is answered for a name that is unknown looks like that of a known one and
// stays the same, in another process that reads the same file too.
func TestScramTellsNoNames(t *testing.T) {
	text := sample(t)
	ask := func(d *auth.Directory, name string) string {
		first, _, _ := scramLogin(t, d.Begin(auth.ScramSHA256, nil), "n,,", name, "x")
		_, rest, _ := strings.Cut(first, ",")
		return rest
	}
	one := open(t, text, auth.Options{AllowPlain: true})
	two := open(t, text, auth.Options{AllowPlain: true})
	known := ask(one, "demo-app@DEMO")
	for _, name := range []string{"nobody", "nobody2", "hashed", "by-certificate"} {
		got := ask(one, name)
		if len(got) != len(known) || !strings.HasSuffix(got, ",i=4096") {
			t.Errorf("%s: %s, a known one %s", name, got, known)
		}
		if ask(one, name) != got || ask(two, name) != got {
			t.Errorf("%s: the salt changes", name)
		}
	}
	if ask(one, "nobody") == ask(one, "nobody2") {
		t.Error("two names have one salt")
	}
	other := open(t, sample(t), auth.Options{AllowPlain: true})
	if ask(one, "nobody") == ask(other, "nobody") {
		t.Error("another file has the same salt")
	}
}

func TestScramActsForOthers(t *testing.T) {
	// permissions.json has no secrets for SCRAM, so nobody there can.
	d := open(t, `{"users": {"a": {"mechanism": "PLAIN", "password": "p", "authorities": ["hono-component"]}}}`, auth.Options{})
	if _, _, err := scramLogin(t, d.Begin(auth.ScramSHA256, nil), "n,,", "a", "p"); !errors.Is(err, iot.ErrUnauthenticated) {
		t.Error(err)
	}
}

func FuzzScram(f *testing.F) {
	d := rfcDirectory(f)
	f.Add(rfcFirst, rfcFinal)
	f.Add("y,a=x,n=u=2C,r=1,e=x", "c=eSxhPXgs,r=1,x=y,p=AAAA")
	f.Fuzz(func(t *testing.T, first, final string) {
		auth.ParseClientFirst(first)
		auth.ParseClientFinal(final)
		x := auth.WithNonce(d.Begin(auth.ScramSHA256, nil), rfcNonce)
		for _, say := range []string{first, final, ""} {
			challenge, id, err := x.Step(t.Context(), []byte(say))
			if id != nil && (first != rfcFirst && !strings.HasPrefix(final, "c=") || id.Name != "user") {
				t.Fatalf("%q, %q lets %s in", first, final, id.Name)
			}
			if err != nil {
				if challenge != nil || id != nil {
					t.Fatal("an error and more")
				}
				return
			}
		}
	})
}
