/* What the gateway asks of PyInstaller's bootloader beyond what it does by itself; see gateway_unpack.c. */

#ifndef GATEWAY_UNPACK_H
#define GATEWAY_UNPACK_H

#include <stdbool.h>

struct PYI_CONTEXT;

/* Opens standard streams that are closed, whose numbers the archive would get, and sets a umask that leaves the folder to its
 * user. */
void gateway_settle(void);

/* From here on SIGTERM and SIGINT end the program with code 3, until Python has handlers of its own. */
void gateway_stop_on_signals(void);

/* The exit code for what the bootloader returns, which is negative where it could not start Python. */
int gateway_exit_code(int returned);

/* Makes the folder to unpack into and holds it for as long as the process lives; ends the process where none can be had. */
int gateway_make_folder(struct PYI_CONTEXT *pyi_ctx);

/* Says that the files could not be written into the folder, removes it, and ends the process. */
void gateway_fail_to_unpack(struct PYI_CONTEXT *pyi_ctx, int cause);

/* Whether a folder has a name that gateway_make_folder gives, and of which process. */
bool gateway_is_folder_name(const char *name, unsigned int *pid);

/* Removes the folder when this process exits. */
void gateway_remove_folder_at_exit(struct PYI_CONTEXT *pyi_ctx);

/* Becomes the executable anew, with signals kept for it; returns only where exec failed, with errno. */
void gateway_exec(struct PYI_CONTEXT *pyi_ctx);

#endif
