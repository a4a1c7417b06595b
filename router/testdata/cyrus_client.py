"""A SASL client on Cyrus SASL (libsasl2), the library beneath Proton.

Usage: cyrus_client.py MECHANISMS USER PASSWORD. Prints the mechanism that it takes
and its first response, then reads one challenge a line and prints the response to
each, with the result of the step (0 = done, 1 = more to come). All messages are hex.
"""
import ctypes
import sys

OK, CONTINUE, INTERACT = 0, 1, 2
USER, AUTHNAME, PASS = 0x4001, 0x4002, 0x4004


class Callback(ctypes.Structure):
    _fields_ = [("id", ctypes.c_ulong), ("proc", ctypes.c_void_p), ("context", ctypes.c_void_p)]


class Interact(ctypes.Structure):
    _fields_ = [("id", ctypes.c_ulong), ("challenge", ctypes.c_char_p), ("prompt", ctypes.c_char_p),
                ("default", ctypes.c_char_p), ("result", ctypes.c_void_p), ("len", ctypes.c_uint)]


def main():
    mechanisms, user, password = sys.argv[1].encode(), sys.argv[2].encode(), sys.argv[3].encode()
    answers = {USER: ctypes.create_string_buffer(b""), AUTHNAME: ctypes.create_string_buffer(user),
               PASS: ctypes.create_string_buffer(password)}
    lib = ctypes.CDLL("libsasl2.so.2")
    if lib.sasl_client_init(None) != OK:
        sys.exit("sasl_client_init")
    callbacks = (Callback * 4)(Callback(USER), Callback(AUTHNAME), Callback(PASS), Callback(0))
    conn = ctypes.c_void_p()
    if lib.sasl_client_new(b"amqp", b"localhost", None, None, callbacks, 0, ctypes.byref(conn)) != OK:
        sys.exit("sasl_client_new")
    prompts, out, size, chosen = ctypes.POINTER(Interact)(), ctypes.c_void_p(), ctypes.c_uint(), ctypes.c_char_p()

    def run(step):
        result = step()
        while result == INTERACT:
            i = 0
            while prompts[i].id:
                answer = answers[prompts[i].id]
                prompts[i].result, prompts[i].len = ctypes.addressof(answer), len(answer.value)
                i += 1
            result = step()
        return result, ctypes.string_at(out, size.value).hex() if out.value else ""

    result, response = run(lambda: lib.sasl_client_start(
        conn, mechanisms, ctypes.byref(prompts), ctypes.byref(out), ctypes.byref(size), ctypes.byref(chosen)))
    if result not in (OK, CONTINUE):
        sys.exit("sasl_client_start: %d" % result)
    print(chosen.value.decode(), response, flush=True)
    for line in sys.stdin:
        challenge = bytes.fromhex(line)
        out.value, size.value = None, 0
        result, response = run(lambda: lib.sasl_client_step(
            conn, challenge, len(challenge), ctypes.byref(prompts), ctypes.byref(out), ctypes.byref(size)))
        print(result, response, flush=True)


main()
