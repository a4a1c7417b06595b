package auth

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/sluice-iot/sluice/internal/config/strictyaml"
)

// fileYAML is identities.yaml (contract: configuration 2).
type fileYAML struct {
	Identities []identityYAML `yaml:"identities"`
	Operators  []operatorYAML `yaml:"operators"`
	Issuers    []issuerYAML   `yaml:"issuers"`
}

type identityYAML struct {
	Name        string          `yaml:"name"`
	Secret      string          `yaml:"secret,omitempty"`
	Assertions  string          `yaml:"assertions,omitempty"`
	Authorities []authorityYAML `yaml:"authorities,flow"`
	Limits      *Limits         `yaml:"limits,omitempty"`
}

type authorityYAML struct {
	Address   string   `yaml:"address,omitempty" json:"address"`
	Operation string   `yaml:"operation,omitempty" json:"operation"`
	May       []string `yaml:"may,flow,omitempty" json:"may"`
}

// entry is an identity and how it proves itself.
type entry struct {
	identity *Identity
	verifier *verifier
	external bool // by certificate
}

// snapshot is one state of the file, never changed.
type snapshot struct {
	entries   map[string]*entry
	operators map[string]*operatorEntry
	certified map[string]*Operator // by common name, or by subject where it has a =
	issuers   map[string]*issuer   // by claim iss
	dummy     *verifier            // does the work of the costliest secret for unknown names
	fakes     fakes                // salts for names that have none
	warnings  []string

	version            uint64
	secrets, scrams    int // entries that have a secret, and one for SCRAM
	oauthBearerRefusal []byte
}

// parse reads either format.
func parse(name string, data []byte, allowPlain bool) (*snapshot, error) {
	s := &snapshot{entries: map[string]*entry{}, operators: map[string]*operatorEntry{}, certified: map[string]*Operator{}, issuers: map[string]*issuer{}}
	var err error
	if isPermissions(data) {
		err = s.readPermissions(name, data)
	} else {
		err = s.readYAML(name, data, allowPlain)
	}
	if err != nil {
		return nil, err
	}
	s.dummy, s.fakes, s.oauthBearerRefusal = s.makeDummy(), s.makeFakes(), s.makeRefusal()
	for _, e := range s.entries {
		if !e.verifier.secret.IsZero() {
			s.secrets++
		}
		if e.verifier.secret.scram != nil {
			s.scrams++
		}
	}
	return s, nil
}

// isPermissions reports whether the file is a JSON object with roles or users.
func isPermissions(data []byte) bool {
	if !bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		return false
	}
	var top map[string]json.RawMessage
	if json.Unmarshal(data, &top) != nil {
		return bytes.Contains(data, []byte(`"users"`)) || bytes.Contains(data, []byte(`"roles"`))
	}
	return top["roles"] != nil || top["users"] != nil
}

func (s *snapshot) readYAML(name string, data []byte, allowPlain bool) error {
	var f fileYAML
	lines, err := strictyaml.Decode(name, data, &f)
	if err != nil {
		return err
	}
	for i := range f.Identities {
		if err := s.addIdentity(&f.Identities[i], allowPlain); err != nil {
			return fmt.Errorf("%s:%d: identity %q: %w", name, lines[fmt.Sprintf("identities[%d].name", i)], f.Identities[i].Name, err)
		}
	}
	for i := range f.Operators {
		if err := s.addOperator(&f.Operators[i], allowPlain); err != nil {
			return fmt.Errorf("%s:%d: operator %q: %w", name, lines[fmt.Sprintf("operators[%d].name", i)], f.Operators[i].Name, err)
		}
	}
	for i, y := range f.Issuers {
		if err := s.addIssuer(y); err != nil {
			return fmt.Errorf("%s:%d: issuer %q: %w", name, lines[fmt.Sprintf("issuers[%d].issuer", i)], y.Issuer, err)
		}
	}
	return nil
}

func (s *snapshot) addIdentity(y *identityYAML, allowPlain bool) error {
	if y.Name == "" {
		return fmt.Errorf("no name")
	}
	if s.entries[y.Name] != nil {
		return fmt.Errorf("given twice")
	}
	if err := checkName(y.Name); err != nil {
		return err
	}
	id := &Identity{Name: y.Name, Kind: Application, Limits: DefaultLimits()}
	switch y.Assertions {
	case "", "optional":
	case "required":
		id.AssertionsRequired = true
	case "hono-2018":
		id.AssertionsRequired, id.AssertionProperty = true, true
	default:
		return fmt.Errorf("assertions %q; expected optional, required or hono-2018", y.Assertions)
	}
	if y.Limits != nil {
		if err := id.Limits.override(*y.Limits); err != nil {
			return err
		}
	}
	var list []Authority
	for _, a := range y.Authorities {
		g, err := a.authority()
		if err != nil {
			return err
		}
		list = append(list, g)
	}
	var err error
	if id.authorities, err = Compile(list); err != nil {
		return err
	}
	e := &entry{identity: id, external: y.Secret == "", verifier: &verifier{}}
	if y.Secret != "" {
		if e.verifier.secret, err = ParseSecret(y.Secret, allowPlain); err != nil {
			return err
		}
	}
	s.entries[y.Name] = e
	return nil
}

// override takes over what o states; what it leaves out keeps its default.
func (l *Limits) override(o Limits) error {
	if o.Connections < 0 || o.Sessions < 0 || o.Links < 0 {
		return fmt.Errorf("limits must not be negative")
	}
	if o.Sessions > 65535 {
		return fmt.Errorf("sessions %d; AMQP has 65535 channels", o.Sessions)
	}
	for _, v := range []struct {
		to   *int
		from int
	}{{&l.Connections, o.Connections}, {&l.Sessions, o.Sessions}, {&l.Links, o.Links}} {
		if v.from != 0 {
			*v.to = v.from
		}
	}
	l.MessageSize = o.MessageSize
	return nil
}

func (a *authorityYAML) authority() (Authority, error) {
	if (a.Address == "") == (a.Operation == "") {
		return Authority{}, fmt.Errorf("an authority has either address or operation")
	}
	may, err := activities(a.May)
	if err != nil {
		return Authority{}, err
	}
	switch {
	case may&Export != 0:
		return Authority{}, fmt.Errorf("export is for operators; expected read, write or execute")
	case a.Operation != "" && may&^Execute != 0:
		return Authority{}, fmt.Errorf("operation %s: expected execute; read and write go with an address", a.Operation)
	case a.Operation != "":
		may = Execute
	case may == 0:
		return Authority{}, fmt.Errorf("address %s: may is missing; expected some of read, write", a.Address)
	case may&Execute != 0:
		return Authority{}, fmt.Errorf("address %s: execute goes with an operation", a.Address)
	}
	return Authority{Address: a.Address, Operation: a.Operation, May: may}, nil
}

func activities(words []string) (Activity, error) {
	var may Activity
	for _, w := range words {
		a, err := ParseActivity(w)
		if err != nil {
			return 0, err
		}
		may |= a
	}
	return may, nil
}
