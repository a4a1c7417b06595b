package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// permissions is Hono's permissions.json (contract: messaging 13). Members that are
// not listed here mean nothing to us and are passed over.
type permissions struct {
	Roles map[string][]permissionsGrant `json:"roles"`
	Users map[string]permissionsUser    `json:"users"`
}

type permissionsGrant struct {
	Resource   string   `json:"resource"`
	Operation  string   `json:"operation"`
	Activities []string `json:"activities"`
}

type permissionsUser struct {
	Mechanism   string   `json:"mechanism"`
	Password    string   `json:"password"`
	Authorities []string `json:"authorities"`
}

// componentRole is the authority that makes the authorization identity of PLAIN
// count.
const componentRole = "hono-component"

func (s *snapshot) readPermissions(name string, data []byte) error {
	var p permissions
	if err := json.Unmarshal(data, &p); err != nil {
		return fmt.Errorf("%s%s: %w", name, position(data, err), err)
	}
	roles := map[string][]Authority{}
	for role, grants := range p.Roles {
		for _, g := range grants {
			a, err := g.authority()
			if err != nil {
				return fmt.Errorf("%s: role %q: %w", name, role, err)
			}
			roles[role] = append(roles[role], a)
		}
	}
	for user, u := range p.Users {
		if err := s.addUser(user, &u, roles); err != nil {
			return fmt.Errorf("%s: user %q: %w", name, user, err)
		}
	}
	return nil
}

func (s *snapshot) addUser(user string, u *permissionsUser, roles map[string][]Authority) error {
	if err := checkName(user); err != nil {
		return err
	}
	id := &Identity{Name: user, Kind: Application, Limits: DefaultLimits()}
	var list []Authority
	for _, role := range u.Authorities {
		grants, known := roles[role]
		if !known && role != componentRole {
			s.warnings = append(s.warnings, fmt.Sprintf("user %q has the unknown role %q", user, role))
		}
		list = append(list, grants...)
	}
	id.actsForOthers = slices.Contains(u.Authorities, componentRole)
	var err error
	if id.authorities, err = Compile(list); err != nil {
		return err
	}
	e := &entry{identity: id, verifier: &verifier{}}
	switch {
	case u.Mechanism == "EXTERNAL":
		e.external = true
	case u.Mechanism == "PLAIN" && u.Password != "":
		e.verifier.secret = plainSecret(u.Password)
	case u.Mechanism == "PLAIN":
		return errors.New("mechanism PLAIN without password")
	default:
		return fmt.Errorf("mechanism %q; expected PLAIN or EXTERNAL", u.Mechanism)
	}
	s.entries[user] = e
	return nil
}

func (g *permissionsGrant) authority() (Authority, error) {
	if (g.Resource == "") == (g.Operation == "") {
		return Authority{}, errors.New("a grant has either resource or operation")
	}
	a := Authority{Address: g.Resource, Operation: g.Operation}
	for _, word := range g.Activities {
		switch word {
		case "READ":
			a.May |= Read
		case "WRITE":
			a.May |= Write
		case "EXECUTE":
			a.May |= Execute
		default:
			return Authority{}, fmt.Errorf("activity %q; expected READ, WRITE or EXECUTE", word)
		}
	}
	if a.Operation != "" && a.May&Execute == 0 {
		return Authority{}, fmt.Errorf("operation %q: expected the activity EXECUTE", g.Operation)
	}
	return a, nil
}

// position is the line of a JSON error, in the form :LINE, or nothing.
func position(data []byte, err error) string {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	offset := int64(-1)
	switch {
	case errors.As(err, &syntax):
		offset = syntax.Offset
	case errors.As(err, &kind):
		offset = kind.Offset
	}
	if offset < 0 || offset > int64(len(data)) {
		return ""
	}
	line := 1
	for _, b := range data[:offset] {
		if b == '\n' {
			line++
		}
	}
	return fmt.Sprintf(":%d", line)
}
