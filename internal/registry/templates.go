package registry

import (
	"encoding/asn1"
	"fmt"
	"strings"
)

// templateOIDs are the attribute types behind the placeholders of identity templates.
var templateOIDs = map[string]string{
	"subject-cn": "2.5.4.3", "subject-ou": "2.5.4.11", "subject-o": "2.5.4.10",
}

// ApplyTemplate puts the members of a client certificate's subject into an
// identity template (contract: registry, section 3.7). subject is the DER form
// (RawSubject). Of several attributes of one type the one nearest to the root
// counts, which is the last written one in RFC 2253. The error, iot.ErrInvalid,
// names the attribute that the subject does not have.
func ApplyTemplate(template string, subject []byte) (string, error) {
	if err := checkTemplate(template); err != nil {
		return "", invalid("%v", err)
	}
	dn, err := SubjectDN(subject)
	if err != nil {
		return "", invalid("subject %v", err)
	}
	var missing error
	out := placeholder.ReplaceAllStringFunc(template, func(p string) string {
		name := strings.Trim(p, "{}")
		if name == "subject-dn" {
			return dn
		}
		value, ok := attributeText(subject, templateOIDs[name])
		if !ok && missing == nil {
			missing = fmt.Errorf("template %.60q: the certificate's subject %.120q has no %s", template, dn, strings.ToUpper(name[len("subject-"):]))
		}
		return value
	})
	if missing != nil {
		return "", invalid("%v", missing)
	}
	return out, nil
}

// attributeText returns the first attribute of a type in a DER name, in the
// order of the encoding: the root comes first.
func attributeText(der []byte, oid string) (string, bool) {
	var name []dnSET
	if rest, err := asn1.Unmarshal(der, &name); err != nil || len(rest) > 0 {
		return "", false
	}
	for _, rdn := range name {
		for _, a := range rdn {
			if a.Type.String() == oid {
				return textOf(a.Value)
			}
		}
	}
	return "", false
}
