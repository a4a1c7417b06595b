package amqp

// Constructor bytes of the primitive types (Part 1, section 1.6).
const (
	codeDescribed  = 0x00
	codeNull       = 0x40
	codeTrue       = 0x41
	codeFalse      = 0x42
	codeUint0      = 0x43
	codeUlong0     = 0x44
	codeList0      = 0x45
	codeUbyte      = 0x50
	codeByte       = 0x51
	codeSmallUint  = 0x52
	codeSmallUlong = 0x53
	codeSmallInt   = 0x54
	codeSmallLong  = 0x55
	codeBoolean    = 0x56
	codeUshort     = 0x60
	codeShort      = 0x61
	codeUint       = 0x70
	codeInt        = 0x71
	codeFloat      = 0x72
	codeChar       = 0x73
	codeDecimal32  = 0x74
	codeUlong      = 0x80
	codeLong       = 0x81
	codeDouble     = 0x82
	codeTimestamp  = 0x83
	codeDecimal64  = 0x84
	codeDecimal128 = 0x94
	codeUUID       = 0x98
	codeBinary8    = 0xa0
	codeString8    = 0xa1
	codeSymbol8    = 0xa3
	codeBinary32   = 0xb0
	codeString32   = 0xb1
	codeSymbol32   = 0xb3
	codeList8      = 0xc0
	codeMap8       = 0xc1
	codeList32     = 0xd0
	codeMap32      = 0xd1
	codeArray8     = 0xe0
	codeArray32    = 0xf0
)

// Descriptor is the numeric descriptor of a described type, domain 0 (AMQP).
type Descriptor uint64

// Descriptors of performatives, delivery states, termini, message sections
// and SASL frames (Part 2, 3 and 5).
const (
	DescOpen        Descriptor = 0x10
	DescBegin       Descriptor = 0x11
	DescAttach      Descriptor = 0x12
	DescFlow        Descriptor = 0x13
	DescTransfer    Descriptor = 0x14
	DescDisposition Descriptor = 0x15
	DescDetach      Descriptor = 0x16
	DescEnd         Descriptor = 0x17
	DescClose       Descriptor = 0x18
	DescError       Descriptor = 0x1d

	DescReceived Descriptor = 0x23
	DescAccepted Descriptor = 0x24
	DescRejected Descriptor = 0x25
	DescReleased Descriptor = 0x26
	DescModified Descriptor = 0x27

	DescSource Descriptor = 0x28
	DescTarget Descriptor = 0x29

	DescDeleteOnClose             Descriptor = 0x2b
	DescDeleteOnNoLinks           Descriptor = 0x2c
	DescDeleteOnNoMessages        Descriptor = 0x2d
	DescDeleteOnNoLinksOrMessages Descriptor = 0x2e

	DescCoordinator        Descriptor = 0x30
	DescDeclare            Descriptor = 0x31
	DescDischarge          Descriptor = 0x32
	DescDeclared           Descriptor = 0x33
	DescTransactionalState Descriptor = 0x34

	DescSASLMechanisms Descriptor = 0x40
	DescSASLInit       Descriptor = 0x41
	DescSASLChallenge  Descriptor = 0x42
	DescSASLResponse   Descriptor = 0x43
	DescSASLOutcome    Descriptor = 0x44

	DescHeader                Descriptor = 0x70
	DescDeliveryAnnotations   Descriptor = 0x71
	DescMessageAnnotations    Descriptor = 0x72
	DescProperties            Descriptor = 0x73
	DescApplicationProperties Descriptor = 0x74
	DescData                  Descriptor = 0x75
	DescSequence              Descriptor = 0x76
	DescValue                 Descriptor = 0x77
	DescFooter                Descriptor = 0x78
)

// descriptorNames are the symbolic descriptors, which a peer may send instead
// of the numeric ones.
var descriptorNames = map[Descriptor]string{
	DescOpen: "amqp:open:list", DescBegin: "amqp:begin:list", DescAttach: "amqp:attach:list",
	DescFlow: "amqp:flow:list", DescTransfer: "amqp:transfer:list", DescDisposition: "amqp:disposition:list",
	DescDetach: "amqp:detach:list", DescEnd: "amqp:end:list", DescClose: "amqp:close:list", DescError: "amqp:error:list",
	DescReceived: "amqp:received:list", DescAccepted: "amqp:accepted:list", DescRejected: "amqp:rejected:list",
	DescReleased: "amqp:released:list", DescModified: "amqp:modified:list",
	DescSource: "amqp:source:list", DescTarget: "amqp:target:list",
	DescDeleteOnClose: "amqp:delete-on-close:list", DescDeleteOnNoLinks: "amqp:delete-on-no-links:list",
	DescDeleteOnNoMessages:        "amqp:delete-on-no-messages:list",
	DescDeleteOnNoLinksOrMessages: "amqp:delete-on-no-links-or-messages:list",
	DescCoordinator:               "amqp:coordinator:list", DescDeclare: "amqp:declare:list", DescDischarge: "amqp:discharge:list",
	DescDeclared: "amqp:declared:list", DescTransactionalState: "amqp:transactional-state:list",
	DescSASLMechanisms: "amqp:sasl-mechanisms:list", DescSASLInit: "amqp:sasl-init:list",
	DescSASLChallenge: "amqp:sasl-challenge:list", DescSASLResponse: "amqp:sasl-response:list",
	DescSASLOutcome: "amqp:sasl-outcome:list",
	DescHeader:      "amqp:header:list", DescDeliveryAnnotations: "amqp:delivery-annotations:map",
	DescMessageAnnotations: "amqp:message-annotations:map", DescProperties: "amqp:properties:list",
	DescApplicationProperties: "amqp:application-properties:map", DescData: "amqp:data:binary",
	DescSequence: "amqp:amqp-sequence:list", DescValue: "amqp:amqp-value:*", DescFooter: "amqp:footer:map",
}

var descriptorByName = func() map[string]Descriptor {
	m := make(map[string]Descriptor, len(descriptorNames))
	for d, n := range descriptorNames {
		m[n] = d
	}
	return m
}()

// String returns the symbolic descriptor, or the number in hexadecimal.
func (d Descriptor) String() string {
	if n, ok := descriptorNames[d]; ok {
		return n
	}
	return "0x" + hex(uint64(d))
}

func hex(v uint64) string {
	const digits = "0123456789abcdef"
	var buf [16]byte
	i := len(buf)
	for {
		i--
		buf[i] = digits[v&15]
		if v >>= 4; v == 0 {
			return string(buf[i:])
		}
	}
}
