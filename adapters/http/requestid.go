package http

import (
	"encoding/base64"
	"path"
	"strings"

	"github.com/sluice-iot/sluice/internal/iot"
)

// escapedID begins a request id that stands for another one, in Base64: no id begins
// with it otherwise (contract: adapters 6.2). A path is not clear about some
// characters: a device that sends back "a%2Fb" may mean this, or "a/b" escaped.
const escapedID = '8'

// giveOut is the request id that a device is given: one that comes back as it was
// whether or not the device escapes it for the path.
func giveOut(id string) string {
	if plain(id) {
		return id
	}
	return string(escapedID) + base64.RawURLEncoding.EncodeToString([]byte(id))
}

// plain reports whether id may stand in a path as it is (RFC 3986, 3.3), with slashes
// that nobody on the way takes for superfluous.
func plain(id string) bool {
	for i := range len(id) {
		c := id[i]
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && !strings.ContainsRune("-._~!$&'()*+,;=:@/", rune(c)) {
			return false
		}
	}
	return path.Clean("/"+id) == "/"+id
}

// takeBack is the request id that was given out as id. Errors are ErrInvalid.
func takeBack(id string) (string, error) {
	if id == "" || id[0] != escapedID {
		return id, nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(id[1:])
	if err != nil {
		return "", iot.Errorf(iot.ErrInvalid, "malformed request id: want it as hono-cmd-req-id had it")
	}
	return string(b), nil
}
