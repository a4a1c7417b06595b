package keycloaktest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

var client = &http.Client{Timeout: 60 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// Issuer is the issuer of a realm's tokens.
func (s *Server) Issuer(realm string) string { return s.URL + "/realms/" + realm }

// Import adds a realm, given as an export has it.
func (s *Server) Import(t testing.TB, realm []byte) {
	t.Helper()
	s.Admin(t, http.MethodPost, "", json.RawMessage(realm), nil)
}

// Admin makes a request to the admin API as the administrator. path begins after
// /admin/realms, such as /plant/users; body and into may be nil.
func (s *Server) Admin(t testing.TB, method, path string, body, into any) {
	t.Helper()
	var send io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		send = bytes.NewReader(b)
	}
	r, err := http.NewRequest(method, s.URL+"/admin/realms"+path, send)
	if err != nil {
		t.Fatal(err)
	}
	token := s.Token(t, "master", url.Values{"client_id": {"admin-cli"}, "grant_type": {"password"}, "username": {adminName}, "password": {adminPassword}})
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	do(t, r, into)
}

// SetUser changes members of a user, such as enabled.
func (s *Server) SetUser(t testing.TB, realm, name string, change map[string]any) {
	t.Helper()
	var found []map[string]any
	s.Admin(t, http.MethodGet, "/"+realm+"/users?exact=true&username="+url.QueryEscape(name), nil, &found)
	if len(found) != 1 {
		t.Fatalf("%d users are called %s", len(found), name)
	}
	for k, v := range change {
		found[0][k] = v
	}
	s.Admin(t, http.MethodPut, "/"+realm+"/users/"+found[0]["id"].(string), found[0], nil)
}

// Rotate gives a realm another RSA key, which signs from now on; the others stay.
func (s *Server) Rotate(t testing.TB, realm string) {
	t.Helper()
	before := s.activeKey(t, realm)
	var r struct{ ID string }
	s.Admin(t, http.MethodGet, "/"+realm, nil, &r)
	s.Admin(t, http.MethodPost, "/"+realm+"/components", map[string]any{
		"name": "rotated", "providerId": "rsa-generated", "providerType": "org.keycloak.keys.KeyProvider", "parentId": r.ID,
		"config": map[string][]string{"priority": {"1000"}, "enabled": {"true"}, "active": {"true"}, "algorithm": {"RS256"}, "keySize": {"2048"}},
	}, nil)
	if s.activeKey(t, realm) == before {
		t.Fatal("the new key does not sign")
	}
}

// activeKey is the id of the key that signs.
func (s *Server) activeKey(t testing.TB, realm string) string {
	t.Helper()
	var keys struct{ Active map[string]string }
	s.Admin(t, http.MethodGet, "/"+realm+"/keys", nil, &keys)
	return keys.Active["RS256"]
}

// Token asks a realm's token endpoint for an access token.
func (s *Server) Token(t testing.TB, realm string, form url.Values) string {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, s.Issuer(realm)+"/protocol/openid-connect/token", strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	var got struct {
		AccessToken string `json:"access_token"`
	}
	do(t, r, &got)
	return got.AccessToken
}

func do(t testing.TB, r *http.Request, into any) {
	t.Helper()
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode/100 != 2 {
		t.Fatalf("%s %s: %s, %v\n%s", r.Method, r.URL, resp.Status, err, text)
	}
	if into != nil {
		if err := json.Unmarshal(text, into); err != nil {
			t.Fatal(err)
		}
	}
}
